"""Measured times: read from pytest-benchmark's JSON, kept as a small CSV file."""

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
    """One rule on the uploads of one network and K.

    Attributes:
        network: torchvision's name.
        clients: K.
        rule: its name in the benchmark.
        median: of the repetitions (s).
        shortest: of them (s).
        longest: of them (s).
        repetitions: that count; one more came before them.
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
    """What pytest-benchmark (.json) or `table` (.csv) wrote; where a time is in two files, the later one's counts."""
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
    """runtime.csv, without anything about the machine."""
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
    """p of t ~ K^p between the smallest and the largest K: 1 is linear; None where one of them was not measured."""
    low, high = (times.get((network, rule, number)) for number in (min(clients), max(clients)))
    if low is None or high is None:
        return None
    return math.log(high.median / low.median) / math.log(high.clients / low.clients)
