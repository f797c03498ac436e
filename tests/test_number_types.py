"""Verdicts and uploads do not depend on torch's default type, and models of every floating type are judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fedml_gradcam_ae.attacks.shared.attackers import poisoned_uploads
from fedml_gradcam_ae.attacks.shared.colluders import _overheard
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides
from judging import check_verdict
from tiny import tiny_cnn

SMALL = {"probe_size": "native", "map_size": "native"}
TRAINING = {"local_epochs": 1, "local_learning_rate": 0.1, "local_optimizer": "sgd", "local_batch_size": 64}
NEEDED = {
    "deepsight": [{"noise_inputs": 20}],
    "fltrust": [{**TRAINING, "root_images": 64}],
    "flcert": [{"groups": 3}],
    "gradcam_krum": [SMALL],
    "gradcam_ae": [{}, {"profile": "paper", **SMALL}, {"profile": "paper", "probe_images": 2, "epochs": 5}],
    "foolsgold": [{}, {"features": "output_layer"}],
    "arc": [{"malicious": 1}, {"malicious": 1, "rule": "multi_krum"}],
    "bucketing": [{"malicious": 1}, {"malicious": 1, "rule": "centered_clipping"}],
    "nnm": [{"malicious": 1}, {"malicious": 1, "rule": "dnc"}, {"malicious": 1, "rule": "centered_clipping"}],
}
DEFENSES = [(name, params) for name in sorted(registry.defenses()) for params in NEEDED.get(name, [{}])]
STEPS = {"steps": 3, "images": 8}
MORE = {
    "constrained_perturbation": [STEPS, {**STEPS, "jitter": 0.1, "own_deviation": 0.5, "refresh_statistics": True}],
    "adaptive_heatmap": [STEPS, {**STEPS, "profile": "paper", **SMALL}],
    "alie": [{}, {"z": "auto", "jitter": 0.1}],
    "fang": [{"rule": "krum"}, {"rule": "trimmed_mean"}, {"rule": "trimmed_mean", "knowledge": "partial"}],
    "min_max": [{"direction": direction} for direction in ("std", "sign", "unit")],
    "vgae_mp": [{"nodes": 20, "epochs": 3}],
    "uniform_noise": [{"refresh_statistics": True}],
}
ATTACKS = [(name, params) for name in sorted(registry.attacks()) for params in MORE.get(name, [{}])]


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def verdicts(name, params, make_round, dtype):
    """Of three rounds in a row by one defense."""
    rounds = [make_round(8, number=number, network=tiny_cnn().to(dtype)) for number in (1, 2, 3)]
    cls = registry.defenses()[name]
    return rounds, cls(cls.Settings(**params))


@pytest.mark.parametrize(
    ("name", "params", "default"),
    [(*case, torch.float64) for case in DEFENSES]
    + [(*case, torch.bfloat16) for case in DEFENSES if case[0] in ("gradcam_ae", "fltrust", "flcert", "foolsgold")],
)
def test_a_defense_answers_the_same_whatever_the_default_type(make_round, name, params, default) -> None:
    rounds, usual = verdicts(name, params, make_round, torch.float32)
    _, other = verdicts(name, params, make_round, torch.float32)
    for round in rounds:
        expected = usual.judge(round)
        with default_type(default):
            other.prepare(round.network, round.test_data)
            found = other.judge(round)
        assert found.scores == (
            None if expected.scores is None else pytest.approx(expected.scores, rel=1e-6, abs=1e-12)
        )
        assert (found.flagged, found.excluded) == (expected.flagged, expected.excluded)
        for one, two in ((found.model, expected.model), (found.evidence, expected.evidence)):
            for key in two or {}:
                assert one[key].dtype == two[key].dtype
                assert torch.allclose(one[key], two[key], equal_nan=True), key
        assert found.weights == (None if expected.weights is None else pytest.approx(expected.weights, rel=1e-6))
    if overrides(type(usual), "predictor"):
        images = torch.rand(5, 1, 8, 8)
        expected = usual.predictor(round.network)(images)
        with default_type(default):
            assert torch.equal(other.predictor(round.network)(images), expected)


@pytest.mark.parametrize(("name", "params"), ATTACKS)
def test_an_attack_uploads_the_same_whatever_the_default_type(make_round, name, params) -> None:
    def poison():
        cls = registry.attacks()[name]
        settings = cls.Settings(**params, attackers=2)
        return poisoned_uploads(cls(settings), settings, round, [1, 4])

    round = make_round()
    expected = poison()
    with default_type(torch.float64):
        _overheard.pop(round, None)
        found = poison()
    for one, two in zip(found, expected, strict=True):
        for key in two:
            assert one[key].dtype == two[key].dtype
            assert torch.allclose(one[key], two[key], rtol=1e-6, atol=1e-7), key


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "params"), DEFENSES)
def test_models_of_every_floating_type_are_judged(make_round, name, params, dtype) -> None:
    rounds, defense = verdicts(name, params, make_round, dtype)
    defense.prepare(rounds[0].network, rounds[0].test_data)
    for round in rounds:
        found = defense.judge(round)
        if found.scores is not None and found.excluded is not None:
            check_verdict(found, round)
            assert not all(math.isinf(score) for score in found.scores)
        for key, tensor in (found.model or {}).items():
            assert tensor.dtype == round.global_model[key].dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "params"), ATTACKS)
def test_models_of_every_floating_type_are_attacked(make_round, name, params, dtype) -> None:
    round = make_round(network=tiny_cnn().to(dtype))
    cls = registry.attacks()[name]
    settings = cls.Settings(**params, attackers=2)
    for upload in poisoned_uploads(cls(settings), settings, round, [1, 4]):
        assert {key: tensor.dtype for key, tensor in upload.items()} == {
            key: tensor.dtype for key, tensor in round.global_model.items()
        }


@pytest.mark.parametrize(("name", "params"), [case for case in DEFENSES if case[0] != "signguard"])
def test_models_in_float64_get_the_scores_that_they_get_in_float32(make_round, name, params) -> None:
    """SignGuard draws coordinates and clusters signs, where rounding decides."""
    (rounds, usual), (doubled, double) = (
        verdicts(name, params, make_round, dtype) for dtype in (torch.float32, torch.float64)
    )
    expected, found = usual.judge(rounds[0]), double.judge(doubled[0])
    assert found.scores == (None if expected.scores is None else pytest.approx(expected.scores, rel=1e-2, abs=1e-4))
    assert found.excluded == expected.excluded
