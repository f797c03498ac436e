"""Seconds per round of every registered defense, beside FedML's and ByzFL's rules on the same uploads.

    python -m pytest benchmark/speed/bench_defenses.py -k "resnet18 and K20" --benchmark-columns=min,median,max,rounds

A benchmark is named NETWORK-K-RULE, such as resnet18-K20-krum, and -k selects among them: resnet18 or
mobilenet_v3_large; K10, K20 or K50; rules by a part of their name, or by the whole name as `K20-krum]`. ByzFL's rules
are timed at resnet18-K20 only. The timed region is the server's work between the last upload and the aggregation:

    rule = build()          not timed; a new one for each repetition, nothing cached from the last one
    start
        rule judges the K uploads
    stop

No file is written and no picture is drawn. All rules of a network and a K judge the same uploads. The uploads of one
such pair are in memory at a time: 2.2 GB for 50 ResNet-18, and the largest rules need as much again. Each benchmark
starts with a judgment of the first ten uploads, so that code that is loaded at first use is not timed. There are five
repetitions of a rule that takes less than 0.5 s, three of one that takes less than 15 s, and one of others. Compare
medians within one run only: machines differ, and so does their load.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fedml_gradcam_ae
from benchmark.speed import CLIENTS, NETWORKS
from benchmark.speed.rules import Rule, byzfl_rules, rules
from benchmark.speed.uploads import stored_round
from fedml_gradcam_ae import Round

PACKAGE = Path(fedml_gradcam_ae.__file__).parent
RULES = rules() | byzfl_rules()
# The network and K at which ByzFL's rules are timed.
BYZFL_AT = ("resnet18", 20)
CASES = [
    ((network, clients), name)
    for network in NETWORKS
    for clients in CLIENTS
    for name in (RULES if (network, clients) == BYZFL_AT else rules())
]


@pytest.fixture(scope="module")
def uploads(request: pytest.FixtureRequest) -> Round:
    """Return the uploads of a network and K, which are the same for every rule.

    Args:
        request: its `param` is the pair (network, K).
    """
    return stored_round(*request.param)


@pytest.mark.parametrize(
    ("uploads", "name"),
    CASES,
    indirect=["uploads"],
    ids=[f"{network}-K{clients}-{name}" for (network, clients), name in CASES],
)
def test_seconds_per_round(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, uploads: Round, name: str
) -> None:
    """Time one judgment of all uploads by one rule.

    Args:
        benchmark: pytest-benchmark's fixture.
        request: pytest's, with the network and K.
        uploads: of the round.
        name: of the rule.
    """
    network, clients = request.node.callspec.params["uploads"]
    rule = RULES[name]
    benchmark.group = f"{network}, K = {clients}"
    benchmark.extra_info |= {"network": network, "clients": clients, "rule": name, **conditions()}
    judge(*prepared(rule, uploads.only(range(CLIENTS[0]))))
    benchmark.pedantic(judge, setup=lambda: (prepared(rule, uploads), {}), rounds=1)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:  # None with --benchmark-disable
        # pytest-benchmark asks for the number of repetitions in advance, but it depends on the first time. Adding times
        # here works since statistics are computed later.
        for _ in range(repetitions(benchmark.stats.stats.data[0]) - 1):
            benchmark.stats.update(seconds(*prepared(rule, uploads)))


def prepared(rule: Rule, uploads: Round) -> tuple[Callable[[Any], Any], Any]:
    """Return a new judge and its input.

    Args:
        rule: what to time.
        uploads: of the round.
    """
    return rule.build(len(uploads.uploads)), rule.prepare(uploads)


def judge(rule: Callable[[Any], Any], given: Any) -> None:
    """Judge the uploads: the timed region.

    Args:
        rule: a judge.
        given: its input; see `prepared`.
    """
    rule(given)


def seconds(rule: Callable[[Any], Any], given: Any) -> float:
    """Return the time of one judgment (s), measured as pytest-benchmark does.

    Args:
        rule: a judge.
        given: its input; see `prepared`.
    """
    start = perf_counter()
    judge(rule, given)
    return perf_counter() - start


def repetitions(seconds: float) -> int:
    """Return the number of repetitions for a rule.

    Args:
        seconds: the time of its first judgment.
    """
    return 5 if seconds < 0.5 else 3 if seconds < 15 else 1


def conditions() -> dict[str, Any]:
    """Return what the time depends on beside the machine: threads, commit, versions and the path of the plug-in."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "fedml", "byzfl"))
    return {
        "threads": torch.get_num_threads(),
        "commit": last_change(),
        "versions": f"python {platform.python_version()}, {libraries}",
        "package": str(PACKAGE),
    }


def last_change() -> str:
    """Return the last commit that changed the plug-in, or an empty string outside of git.

    A + is appended if the plug-in has uncommitted changes.
    """

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments, "--", "."], cwd=PACKAGE, capture_output=True, text=True)
        return found.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    return commit + "+" if commit and git("status", "--porcelain") else commit
