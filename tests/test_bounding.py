"""The bound on each tensor's step, against numpy, and what every rule aggregates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from every_tensor import NETWORKS
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.bounding import LONE, Steps, bounded, lower_median
from fedml_gradcam_ae.contract.round import LARGEST_STEP
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.hooks.defender import hand_back
from tiny import state_of, tiny_cnn


def numpy_bounded(round, largest):
    """The definition, one tensor of one client after the other, in float64."""
    clients = range(len(round.uploads))
    names = [name for name, start in round.global_model.items() if start.is_floating_point()]
    starts = {name: round.global_model[name].double().numpy() for name in names}
    steps = {name: [round.uploads[i][name].double().numpy() - starts[name] for i in clients] for name in names}
    lengths = {name: [float(np.sqrt((step**2).sum())) for step in steps[name]] for name in names}

    def middle(values):
        return sorted(values)[(len(values) - 1) // 2]

    usual = {name: middle(lengths[name]) for name in names}
    models = [dict(upload) for upload in round.uploads]
    for i in clients:
        moved = [lengths[name][i] / usual[name] for name in names if usual[name] > 0]
        alone = max(1, 3 / max(1, round.samples[i] / middle(round.samples)))
        for name in names:
            limit = min(largest, max(1, middle(moved) if moved else 1) * alone) * usual[name]
            if lengths[name][i] > limit:
                shorter = starts[name] + steps[name][i] * limit / lengths[name][i]
                models[i][name] = torch.tensor(shorter).to(round.global_model[name].dtype)
    return models


def with_tensor(round, position, name, tensor):
    uploads = list(round.uploads)
    uploads[position] = {**uploads[position], name: tensor}
    return replace(round, uploads=uploads)


@pytest.mark.parametrize("largest", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("clients", [1, 2, 3, 6, 7])
def test_the_bound_is_the_definition(make_round, clients, largest) -> None:
    round = replace(make_round(clients), largest_step=largest)
    uploads = [
        {n: t + (0.1 * i if t.is_floating_point() else i) for n, t in upload.items()}
        for i, upload in enumerate(round.uploads)
    ]
    # One client claims much, and moves its bias far.
    claims = [1.0] * (clients - 1) + [4.0]
    uploads[-1]["5.bias"] = uploads[-1]["5.bias"] + 7
    round = replace(round, uploads=uploads, samples=claims)
    for found, expected in zip(round.bounded.uploads, numpy_bounded(round, largest), strict=True):
        assert list(found) == list(expected)
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_lengths_are_numpys_in_every_type_and_layout(dtype, layout, monkeypatch) -> None:
    monkeypatch.setattr("fedml_gradcam_ae.contract.updates._SMALLEST_BLOCK", 7)  # several blocks of each tensor
    torch.manual_seed(0)
    shapes = {"conv": (5, 3, 3, 3), "matrix": (6, 11), "vector": (13,), "number": ()}

    def model():
        tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
        return {**tensors, "conv": tensors["conv"].to(memory_format=layout)}

    center, uploads = model(), [model() for _ in range(3)]
    found = Updates(uploads, center, list(shapes)).lengths()
    expected = [
        [float(np.linalg.norm((u[n].double() - center[n].double()).numpy().ravel())) for n in shapes] for u in uploads
    ]
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-5)


def test_what_needs_no_change_is_the_very_same_object(make_round) -> None:
    round = make_round(6)
    assert round.bounded is round
    far = with_tensor(round, 2, "5.bias", round.uploads[2]["5.bias"] + 100)
    kept = far.bounded
    assert [kept.uploads[i] is far.uploads[i] for i in range(6)] == [True, True, False, True, True, True]
    assert [n for n in far.uploads[2] if kept.uploads[2][n] is not far.uploads[2][n]] == ["5.bias"]
    assert far.shortened == [0, 0, 1, 0, 0, 0]
    assert kept.bounded is kept
    assert replace(far, largest_step=None).bounded.uploads is far.uploads


@pytest.mark.parametrize(("dtype", "value"), [(torch.float32, 3e38), (torch.float32, -3e38), (torch.float64, 1e300)])
def test_numbers_whose_squares_overflow_are_bounded_and_stay_finite(make_round, dtype, value) -> None:
    round = make_round(6, network=tiny_cnn().to(dtype))
    bias = round.uploads[2]["5.bias"].clone()
    bias[4] = value
    start = {**round.global_model, "5.bias": torch.full_like(bias, -value)}  # even the difference overflows
    for center in (round.global_model, start):
        far = replace(with_tensor(round, 2, "5.bias", bias), global_model=center)
        found = far.bounded.uploads[2]["5.bias"]
        assert torch.isfinite(found).all()
        if center is round.global_model:
            usual = lower_median(far.steps.lengths)[far.steps.names.index("5.bias")]
            assert float((found - center["5.bias"]).double().norm()) <= LARGEST_STEP * float(usual) * 1.001


def test_a_tensor_that_most_clients_leave_as_it_is_stays_as_it_is(make_round) -> None:
    round = make_round(5)  # no client moves the statistics
    far = with_tensor(round, 1, "1.running_mean", round.global_model["1.running_mean"] + 1e-3)
    assert torch.equal(far.bounded.uploads[1]["1.running_mean"], round.global_model["1.running_mean"])


@given(st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4), st.floats(0, 1e6, width=32), st.integers(0, 2))
def test_a_variance_stays_between_the_global_models_and_the_uploads(variances, honest, attackers) -> None:
    network = nn.BatchNorm1d(4).eval()
    start = state_of(network)
    far = {**start, "running_var": torch.tensor(variances)}
    near = {**start, "running_var": torch.full((4,), honest)}
    uploads = [far] * attackers + [near] * (5 - attackers)
    steps = Steps.of(uploads, start, [1.0] * 5)
    for upload, found in zip(uploads, bounded(uploads, start, steps.names, steps.factors(0.5)), strict=True):
        low = torch.minimum(upload["running_var"], start["running_var"])
        high = torch.maximum(upload["running_var"], start["running_var"])
        assert bool((found["running_var"] >= low * (1 - 1e-6)).all())
        assert bool((found["running_var"] <= high * (1 + 1e-6)).all())
        assert bool((found["running_var"] >= 0).all())


def test_of_two_clients_the_shorter_step_decides(make_round) -> None:
    round = make_round(2)
    far = with_tensor(round, 0, "5.bias", round.global_model["5.bias"] + 1000)
    step = far.bounded.uploads[0]["5.bias"] - round.global_model["5.bias"]
    usual = (round.uploads[1]["5.bias"] - round.global_model["5.bias"]).norm()
    assert float(step.norm()) == pytest.approx(LONE * float(far.steps.proportions[0]) * float(usual), rel=1e-4)


def test_a_part_of_a_round_is_bounded_by_what_is_usual_in_the_whole(make_round) -> None:
    round = make_round(6)
    far = with_tensor(round, 2, "5.bias", round.uploads[2]["5.bias"] + 100)
    alone = far.only([2])
    assert torch.equal(alone.bounded.uploads[0]["5.bias"], far.bounded.uploads[2]["5.bias"])
    assert torch.equal(far.bounded.only([2]).uploads[0]["5.bias"], far.bounded.uploads[2]["5.bias"])


def test_mixed_updates_are_mixtures_of_bounded_uploads(make_round) -> None:
    round = make_round(6)
    far = with_tensor(round, 2, "5.bias", round.uploads[2]["5.bias"] + 1e6)
    mixing = torch.full((6, 6), 1 / 6, dtype=torch.float64)
    mean = far.mixed(mixing).bounded.updates.columnwise(lambda values: values[0])
    expected = torch.stack([upload["5.bias"] for upload in far.bounded.uploads]).mean(dim=0)
    torch.testing.assert_close(mean["5.bias"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_neither_the_uploads_nor_the_global_model_change(make_round, build) -> None:
    round = replace(make_round(4, network=build().double()), largest_step=0.1)
    before = [state.copy() for state in (*round.uploads, round.global_model)]
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in before]
    assert round.bounded is not round
    for state, then in zip((*round.uploads, round.global_model), copies, strict=True):
        assert all(torch.equal(state[name], then[name]) for name in then)


def test_a_round_that_is_judged_and_aggregated_is_measured_once(make_round, monkeypatch) -> None:
    measured = []
    lengths = Updates.lengths
    monkeypatch.setattr(Updates, "lengths", lambda updates: measured.append(1) or lengths(updates))
    round = make_round(6)
    defense = registry.defenses()["gradcam_ae"]
    hand_back(defense(defense.Settings(epochs=2)).judge(round), round)
    assert round.shortened == [0] * 6
    assert len(measured) == 1
