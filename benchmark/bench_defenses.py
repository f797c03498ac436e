"""Seconds per round of each defense on K = 20 ResNet-18 uploads, beside FedML's and ByzFL's on the same uploads.

    python -m pytest benchmark/bench_defenses.py --benchmark-columns=min,median,max,rounds

The timed region is what the server does between the last upload and the aggregation:

    defense = build()          not timed; a new one for each repetition, nothing cached from the last one
    start
        defense judges the 20 uploads
    stop

No file is written and no picture drawn. ByzFL's rules work on vectors: they are given a matrix that is made before the
clock starts. Compare medians within one run only: machines differ, and so does their load.
`python -m benchmark.peak_memory` measures the memory of the same rules.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import byzfl
import pytest
import torch
from fedml.core.security.defense.krum_defense import KrumDefense
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn
from torchvision.models import resnet18

from fedml_gradcam_ae import Round, registry

CLIENTS = 20
MALICIOUS = 2
REPETITIONS = 5

Judge = Callable[[Round], Any]


def resnet18_round() -> Round:
    """Twenty ResNet-18 for ten classes."""
    torch.manual_seed(0)
    return round_of(resnet18(num_classes=10))


def round_of(network: nn.Module) -> Round:
    """Twenty uploads that differ as after some local training, and 100 images of 32 x 32."""
    network.eval()
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def upload() -> dict[str, torch.Tensor]:
        return {
            name: tensor + 0.01 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor.clone()
            for name, tensor in state.items()
        }

    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.mul_(2)  # so that no upload gets a negative variance
    return Round(
        number=1,
        client_ids=list(range(CLIENTS)),
        uploads=[upload() for _ in range(CLIENTS)],
        samples=[100.0] * CLIENTS,
        global_model=state,
        network=copy.deepcopy(network),
        test_data=[(torch.rand(100, 3, 32, 32), torch.randint(0, 10, (100,)))],
    )


def ours(name: str, **params: Any) -> Judge:
    """One of the plug-in's defenses."""
    cls = registry.defenses()[name]
    judge: Judge = cls(cls.Settings(**params)).judge
    return judge


def fedml_krum(kept: int) -> Judge:
    """FedML's Krum (kept = 1) or multi-Krum."""
    rule = KrumDefense(SimpleNamespace(byzantine_client_num=MALICIOUS, krum_param_m=kept))
    return lambda round: rule.defend_before_aggregation(list(zip(round.samples, round.uploads, strict=True)))


def matrix(round: Round) -> torch.Tensor:
    """(clients, d), as ByzFL takes the uploads."""
    return torch.stack([torch.cat([upload[name].flatten() for name in round.parameters]) for upload in round.uploads])


TRAINING = {
    "local_epochs": 1,
    "local_learning_rate": 0.01,
    "local_optimizer": "sgd",
    "local_weight_decay": 0.0,
    "local_batch_size": 32,
}
OURS: dict[str, Callable[[], Judge]] = {
    "krum": partial(ours, "krum", malicious=MALICIOUS),
    "multi_krum": partial(ours, "multi_krum", malicious=MALICIOUS),
    "trimmed_mean": partial(ours, "trimmed_mean", beta=0.1),
    "median": partial(ours, "median"),
    "geometric_median": partial(ours, "geometric_median"),
    "centered_clipping": partial(ours, "centered_clipping"),
    "nnm (trimmed_mean)": partial(ours, "nnm", malicious=MALICIOUS, rule_params={"beta": 0.1}),
    "dnc": partial(ours, "dnc", malicious=MALICIOUS),
    "fltrust": partial(ours, "fltrust", **TRAINING),
    "fldetector": partial(ours, "fldetector"),
    "flcert": partial(ours, "flcert"),
    "auror": partial(ours, "auror"),
    "faa_dl": partial(ours, "faa_dl"),
    "foolsgold": partial(ours, "foolsgold"),
    "signguard": partial(ours, "signguard"),
    "flame": partial(ours, "flame"),
    "gradcam_krum": partial(ours, "gradcam_krum", malicious=MALICIOUS),
    "gradcam_ae (paper)": partial(ours, "gradcam_ae"),
    "gradcam_ae (paper, map_size native)": partial(ours, "gradcam_ae", map_size="native"),
}
FEDML: dict[str, Callable[[], Judge]] = {
    "fedml:krum": lambda: fedml_krum(1),
    "fedml:multikrum": lambda: fedml_krum(14),
}
BYZFL: dict[str, Callable[[], Any]] = {
    "byzfl Krum": lambda: byzfl.Krum(f=MALICIOUS),
    "byzfl MultiKrum": lambda: byzfl.MultiKrum(f=MALICIOUS),
    "byzfl TrMean": lambda: byzfl.TrMean(f=MALICIOUS),
    "byzfl Median": byzfl.Median,
}


@pytest.fixture(scope="module")
def uploads() -> Round:
    """The same for every rule."""
    return resnet18_round()


@pytest.fixture(scope="module")
def vectors(uploads: Round) -> torch.Tensor:
    """The same as vectors."""
    return matrix(uploads)


@pytest.mark.parametrize("name", [*FEDML, *OURS])
def test_seconds_per_round(benchmark: BenchmarkFixture, uploads: Round, name: str) -> None:
    """One judgment of all uploads."""
    build = (FEDML | OURS)[name]
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda judge, round: judge(round),
        setup=lambda: ((build(), replace(uploads)), {}),
        rounds=REPETITIONS,
        warmup_rounds=1,
    )


@pytest.mark.parametrize("name", BYZFL)
def test_seconds_per_round_byzfl(benchmark: BenchmarkFixture, vectors: torch.Tensor, name: str) -> None:
    """One aggregation of all vectors."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda rule: rule(vectors),
        setup=lambda: ((BYZFL[name](),), {}),
        rounds=REPETITIONS,
        warmup_rounds=1,
    )
