"""Every rule on uploads as large as the gate lets them through: no error, no NaN, no infinite model."""

from __future__ import annotations

import math

import pytest
import torch

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.canonical import LARGEST
from fedml_gradcam_ae.contract.screening import screen
from tiny import tiny_cnn

PARAMS = {
    "deepsight": {"noise_inputs": 20},
    "fltrust": {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 64},
    "flcert": {"groups": 2},
}


def signs(tensor):
    return torch.where(torch.arange(tensor.numel()) % 2 == 0, 1.0, -1.0).view(tensor.shape).to(tensor)


CHANGES = {
    "the largest": lambda t: torch.full_like(t, LARGEST),
    "the largest, of both signs": lambda t: signs(t) * LARGEST,
    "1e18 longer": lambda t: t + 1e18,
    "tiny": lambda t: t * 1e-38,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", sorted(registry.defenses()))
def test_the_answer_is_finite(make_round, rule, dtype) -> None:
    cls = registry.defenses()[rule]
    for what, change in CHANGES.items():
        for changed in ([2], range(6)):
            round = make_round(network=tiny_cnn().to(dtype))
            uploads = [
                {
                    name: change(tensor).abs()
                    if "running_var" in name
                    else change(tensor)
                    if tensor.is_floating_point() and position in changed
                    else tensor
                    for name, tensor in upload.items()
                }
                for position, upload in enumerate(round.uploads)
            ]
            data = [(images.to(dtype), labels) for images, labels in round.test_data]
            round = screen(make_round(network=tiny_cnn().to(dtype), uploads=uploads, test_data=data))
            assert not round.rejected
            verdict = cls(cls.Settings(**PARAMS.get(rule, {}))).judge(round)
            if verdict.model is not None:
                assert all(torch.isfinite(tensor).all() for tensor in verdict.model.values()), what
            else:
                assert all(math.isfinite(weight) and weight >= 0 for weight in verdict.weights), what
                assert not any(verdict.weights) or math.isclose(sum(verdict.weights), 1), what
            assert not any(math.isnan(score) for score in verdict.scores or ()), what
