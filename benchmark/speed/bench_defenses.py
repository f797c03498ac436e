"""Seconds per round of every registered defense, beside FedML's and ByzFL's rules on the same uploads.

    python -m pytest benchmark/speed/bench_defenses.py -k "resnet18 and K20" --benchmark-columns=min,median,max,rounds

A benchmark is named NETWORK-K-RULE, as resnet18-K20-krum, and -k chooses among them: resnet18 or mobilenet_v3_large;
K10, K20 or K50; rules by a part of their name, or as `K20-krum]` by the whole. ByzFL's are timed at resnet18-K20 alone.
The timed region is what the server does between the last upload and the aggregation:

    rule = build()          not timed; a new one for each repetition, nothing cached from the last one
    start
        rule judges the K uploads
    stop

No file is written and no picture drawn. All rules of a network and a K judge the same uploads; those of one such pair
are in memory at a time, 2.2 GB for 50 ResNet-18, and the largest rules need as much again. A judgment of the first ten
uploads comes before, so that code that is loaded at the first use does not count. Five repetitions of a rule that takes
less than 0.5 s, three of one that takes less than 15 s, one of others.
Compare medians within one run only: machines differ, and so does their load.
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
BYZFL_AT = ("resnet18", 20)
CASES = [
    ((network, clients), name)
    for network in NETWORKS
    for clients in CLIENTS
    for name in (RULES if (network, clients) == BYZFL_AT else rules())
]


@pytest.fixture(scope="module")
def uploads(request: pytest.FixtureRequest) -> Round:
    """The same for every rule."""
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
    """One judgment of all uploads."""
    network, clients = request.node.callspec.params["uploads"]
    rule = RULES[name]
    benchmark.group = f"{network}, K = {clients}"
    benchmark.extra_info |= {"network": network, "clients": clients, "rule": name, **conditions()}
    judge(*prepared(rule, uploads.only(range(CLIENTS[0]))))
    benchmark.pedantic(judge, setup=lambda: (prepared(rule, uploads), {}), rounds=1)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:  # None with --benchmark-disable
        # How often shows only now, and pytest-benchmark has to be told before; what it computes, it computes later.
        for _ in range(repetitions(benchmark.stats.stats.data[0]) - 1):
            benchmark.stats.update(seconds(*prepared(rule, uploads)))


def prepared(rule: Rule, uploads: Round) -> tuple[Callable[[Any], Any], Any]:
    """A new judge and what it is given."""
    return rule.build(len(uploads.uploads)), rule.prepare(uploads)


def judge(rule: Callable[[Any], Any], given: Any) -> None:
    """The timed region."""
    rule(given)


def seconds(rule: Callable[[Any], Any], given: Any) -> float:
    """As pytest-benchmark takes them."""
    start = perf_counter()
    judge(rule, given)
    return perf_counter() - start


def repetitions(seconds: float) -> int:
    """Of a rule that takes so long."""
    return 5 if seconds < 0.5 else 3 if seconds < 15 else 1


def conditions() -> dict[str, Any]:
    """What the time depends on beside the machine."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "fedml", "byzfl"))
    return {
        "threads": torch.get_num_threads(),
        "commit": last_change(),
        "versions": f"python {platform.python_version()}, {libraries}",
        "package": str(PACKAGE),
    }


def last_change() -> str:
    """The last commit that changed the plug-in, with a + where there are changes since; empty outside of git."""

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments, "--", "."], cwd=PACKAGE, capture_output=True, text=True)
        return found.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    return commit + "+" if commit and git("status", "--porcelain") else commit
