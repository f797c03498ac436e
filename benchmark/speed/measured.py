"""Measured times, read from pytest-benchmark's JSON and stored in a small CSV file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.report.tables.table import Table, read, row

Times = Mapping[tuple[str, str, int], "Measured"]  # by network, rule and K
HEADINGS = (
    "network",
    "clients",
    "rule",
    "median (s)",
    "shortest (s)",
    "longest (s)",
    "repetitions",
    "threads",
    "commit",
    "versions",
)


@dataclass(frozen=True)
class Measured:
    """The times of one rule on the uploads of one network and K.

    Attributes:
        network: torchvision's name.
        clients: K.
        rule: its name in the benchmark.
        median: of the repetitions (s).
        shortest: of the repetitions (s).
        longest: of the repetitions (s).
        repetitions: the number of timed judgments; one more, not counted, came before them.
        threads: of PyTorch.
        commit: the last one that changed the plug-in.
        versions: of Python and the libraries.
    """

    network: str
    clients: int
    rule: str
    median: float
    shortest: float
    longest: float
    repetitions: int
    threads: int
    commit: str
    versions: str


def load(paths: Iterable[Path]) -> Times:
    """Read measured times from files.

    Args:
        paths: files of pytest-benchmark (.json) or of `table` (.csv). If two have the same time, the later file counts.

    Returns:
        The times by network, rule and K.
    """
    found: dict[tuple[str, str, int], Measured] = {}
    for path in paths:
        for one in _from_csv(path) if path.suffix == ".csv" else _from_json(path):
            found[one.network, one.rule, one.clients] = one
    return found


def _from_json(path: Path) -> Iterable[Measured]:
    for benchmark in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
        stats, about = benchmark["stats"], benchmark["extra_info"]
        yield Measured(
            about["network"],
            about["clients"],
            about["rule"],
            stats["median"],
            stats["min"],
            stats["max"],
            stats["rounds"],
            about["threads"],
            about["commit"],
            about["versions"],
        )


def _from_csv(path: Path) -> Iterable[Measured]:
    for network, clients, rule, median, shortest, longest, repetitions, threads, *rest in read(path).rows:
        times = float(median), float(shortest), float(longest)
        yield Measured(network, int(clients), rule, *times, int(repetitions), int(threads), *rest)


def table(times: Times) -> Table:
    """Return the table of runtime.csv, without facts about the machine; times have four significant digits.

    Args:
        times: the measured times.
    """
    return Table(
        "runtime",
        HEADINGS,
        [
            row(
                one.network,
                one.clients,
                one.rule,
                float(f"{one.median:.4g}"),
                float(f"{one.shortest:.4g}"),
                float(f"{one.longest:.4g}"),
                one.repetitions,
                one.threads,
                one.commit,
                one.versions,
            )
            for one in times.values()
        ],
    )


def exponent(times: Times, network: str, rule: str, clients: Sequence[int]) -> float | None:
    """Return p of t ~ K^p, fitted to the smallest and the largest K; 1 is linear.

    Args:
        times: the measured times.
        network: torchvision's name.
        rule: its name in the benchmark.
        clients: the values of K.

    Returns:
        The exponent; None if the smallest or the largest K was not measured.
    """
    low, high = (times.get((network, rule, number)) for number in (min(clients), max(clients)))
    if low is None or high is None:
        return None
    return math.log(high.median / low.median) / math.log(high.clients / low.clients)
