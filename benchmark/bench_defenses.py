"""Seconds per round of a defense on K = 20 ResNet-18 uploads, beside FedML's own on the same uploads.

    python -m pytest benchmark/bench_defenses.py --benchmark-columns=min,median,max,rounds

The timed region is what the server does between the last upload and the aggregation:

    defense = build()          not timed; a new one for each repetition
    start
        defense judges the 20 uploads
    stop

No file is written and no picture drawn. Compare medians within one run only: machines differ, and so does their load.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fedml.core.security.defense.krum_defense import KrumDefense
from pytest_benchmark.fixture import BenchmarkFixture
from torchvision.models import resnet18

from fedml_gradcam_ae import Round
from fedml_gradcam_ae.defenses.gradcam_ae import GradCAMAE

CLIENTS = 20
REPETITIONS = 5


@pytest.fixture(scope="module")
def round() -> Round:
    """Twenty ResNet-18 for ten classes that differ as after some local training, and 100 images of 32 x 32."""
    torch.manual_seed(0)
    network = resnet18(num_classes=10).eval()
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


def fedml_krum(kept: int) -> Callable[[Round], Any]:
    """FedML's Krum (kept = 1) or multi-Krum, for two attackers."""
    rule = KrumDefense(SimpleNamespace(byzantine_client_num=2, krum_param_m=kept))
    return lambda round: rule.defend_before_aggregation(list(zip(round.samples, round.uploads, strict=True)))


def gradcam_ae(**params: Any) -> Callable[[Round], Any]:
    """GradCAM-AE, profile `paper`."""
    defense = GradCAMAE(GradCAMAE.Settings(**params))
    return defense.judge


DEFENSES: dict[str, Callable[[], Callable[[Round], Any]]] = {
    "fedml:krum": lambda: fedml_krum(1),
    "fedml:multikrum": lambda: fedml_krum(14),
    "gradcam_ae (paper)": gradcam_ae,
    "gradcam_ae (paper, map_size native)": lambda: gradcam_ae(map_size="native"),
}


@pytest.mark.parametrize("name", DEFENSES)
def test_seconds_per_round(benchmark: BenchmarkFixture, round: Round, name: str) -> None:
    """One judgment of all uploads."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda judge: judge(round),
        setup=lambda: ((DEFENSES[name](),), {}),
        rounds=REPETITIONS,
        warmup_rounds=1,
    )
