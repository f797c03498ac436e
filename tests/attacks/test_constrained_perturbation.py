"""(9a, 9b): the loss is not below where it started, the ball is not left, no more changes than allowed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedml_gradcam_ae.attacks.constrained_perturbation import (
    ConstrainedPerturbation,
    project,
    projected_gradient_ascent,
)
from tiny import digits

ATTACKERS = [1, 4]


def poison(round, attackers=ATTACKERS, **params):
    attack = ConstrainedPerturbation(ConstrainedPerturbation.Settings(**{"steps": 8, "images": 32, **params}))
    return attack.poison(round, attackers)


def vector(upload, names):
    """The parameters as numpy, in float64: the tests' own arithmetic."""
    return np.concatenate([upload[name].numpy().astype(np.float64).ravel() for name in names])


def with_local_data(make_round, **changes):
    images, labels = digits()
    local = {100 + i: [(images[50 * i : 50 * i + 40], labels[50 * i : 50 * i + 40])] for i in range(6)}
    return make_round(local_data=local, **changes)


def measure(round, poisoned):
    """||W' - W_g'|| of the average that FedAvg would really make, and r for a radius of 1."""
    names = [name for name, _ in round.network.named_parameters()]
    uploads = [poisoned[ATTACKERS.index(i)] if i in ATTACKERS else upload for i, upload in enumerate(round.uploads)]
    average = np.average([vector(upload, names) for upload in uploads], axis=0, weights=round.samples)
    benign = [i for i in range(len(uploads)) if i not in ATTACKERS]
    heard = [vector(round.uploads[i], names) for i in benign]
    mean = np.average(heard, axis=0, weights=[round.samples[i] for i in benign])
    furthest = max(np.linalg.norm(upload - mean) for upload in heard)
    return np.linalg.norm(vector(poisoned[0], names) - average), furthest, mean, names


@settings(max_examples=25, deadline=None)
@given(
    radius=st.floats(0.01, 5),
    ratio=st.sampled_from([0.2, 0.5, 0.8, 1.0]),
    claimed=st.lists(st.integers(1, 500), min_size=6, max_size=6),
    steps=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_invariants(make_round, radius, ratio, claimed, steps, seed) -> None:
    round = with_local_data(make_round, samples=[float(n) for n in claimed])
    poisoned = poison(round, radius=radius, poisoning_ratio=ratio, steps=steps, seed=seed)
    distance, furthest, mean, names = measure(round, poisoned)
    assert distance <= radius * furthest * (1 + 1e-6)
    changed = (~np.isclose(vector(poisoned[0], names), mean, rtol=3e-7, atol=0)).sum()  # beyond rounding the mean
    assert changed <= math.ceil(ratio * len(mean))
    assert all(torch.equal(a, b) for a, b in zip(poisoned[0].values(), poisoned[1].values(), strict=True))


@settings(max_examples=15, deadline=None)
@given(
    radius=st.floats(0.05, 3),
    ratio=st.sampled_from([0.2, 1.0]),
    disguise=st.one_of(
        st.builds(lambda length: {"jitter": length}, st.floats(0.01, 3)),
        st.builds(lambda share: {"own_deviation": share}, st.floats(0.01, 3)),
    ),
    seed=st.integers(0, 1000),
)
def test_disguised_copies_differ_and_stay_in_the_ball(make_round, radius, ratio, disguise, seed) -> None:
    round = with_local_data(make_round)
    copies = poison(round, radius=radius, poisoning_ratio=ratio, **disguise, seed=seed, steps=3)
    names = round.parameters
    assert not np.array_equal(vector(copies[0], names), vector(copies[1], names))
    for copy in copies:  # as if all attackers had uploaded this one
        distance, furthest, mean, names = measure(round, [copy, copy])
        assert distance <= radius * furthest * (1 + 1e-6)
        changed = (~np.isclose(vector(copy, names), mean, rtol=3e-7, atol=0)).sum()
        assert changed <= math.ceil(ratio * len(mean))


def global_loss(round, poisoned, images, labels):
    """Cross-entropy of the federated average, by loading it into the network."""
    uploads = [poisoned[ATTACKERS.index(i)] if i in ATTACKERS else upload for i, upload in enumerate(round.uploads)]
    weights = np.array(round.samples) / sum(round.samples)
    average = {
        name: sum(w * upload[name].double() for w, upload in zip(weights, uploads, strict=True)).to(tensor.dtype)
        for name, tensor in round.global_model.items()
    }
    round.network.load_state_dict(average)
    with torch.no_grad():
        return nn.functional.cross_entropy(round.network(images), labels).item()


def test_the_attack_reaches_far_and_hurts_the_average_that_the_server_makes(make_round) -> None:
    round = with_local_data(make_round)
    poisoned = poison(round, radius=2.0, steps=30)
    distance, furthest, _, _ = measure(round, poisoned)
    assert distance > 0.99 * 2.0 * furthest  # it uses the room that it has
    images, labels = digits()
    harmless = [round.uploads[i] for i in ATTACKERS]
    assert global_loss(round, poisoned, images, labels) > global_loss(round, harmless, images, labels) + 0.1


def test_a_wider_ball_and_more_parameters_hurt_more(make_round) -> None:
    images, labels = digits()
    round = with_local_data(make_round)

    def loss(**params):
        return global_loss(round, poison(round, steps=30, **params), images, labels)

    assert loss(radius=0.3) < loss(radius=1.0) < loss(radius=3.0)
    assert loss(poisoning_ratio=0.05) < loss(poisoning_ratio=1.0)


def test_batchnorm_statistics_are_the_overheard_mean(make_round) -> None:
    round = with_local_data(make_round)
    uploads = [dict(upload) for upload in round.uploads]
    for i, upload in enumerate(uploads):
        upload["1.running_mean"] = torch.full((4,), float(i))
    round = with_local_data(make_round, uploads=uploads)
    benign, samples = [0, 2, 3, 5], [10, 12, 13, 15]
    expected = sum(i * n for i, n in zip(benign, samples, strict=True)) / sum(samples)
    assert poison(round)[0]["1.running_mean"].tolist() == pytest.approx([expected] * 4)
    own = poison(round, own_deviation=1.0)[0]["1.running_mean"]
    assert own.tolist() == round.uploads[1]["1.running_mean"].tolist()


def test_fewer_overheard_clients_give_another_upload(make_round) -> None:
    round = with_local_data(make_round)
    everything, little = poison(round)[0], poison(round, eavesdropped=2)[0]
    assert not torch.equal(everything["0.weight"], little["0.weight"])
    assert torch.equal(everything["0.weight"], poison(round, eavesdropped=4)[0]["0.weight"])


def test_the_attackers_use_their_own_images_and_not_the_servers(make_round) -> None:
    images, labels = digits()
    own = with_local_data(make_round)
    first = poison(own)[0]["0.weight"]
    assert torch.equal(first, poison(with_local_data(make_round, test_data=[(images[:5], labels[:5])]))[0]["0.weight"])
    others_changed = {**own.local_data, 100: [(images[500:540], labels[500:540])]}
    assert torch.equal(first, poison(make_round(local_data=others_changed))[0]["0.weight"])
    changed = {**own.local_data, 101: [(images[500:540], labels[500:540])]}
    assert not torch.equal(first, poison(make_round(local_data=changed))[0]["0.weight"])


def test_without_local_data_the_servers_images_are_taken(make_round) -> None:
    assert poison(make_round())[0].keys() == make_round().global_model.keys()


def test_where_everybody_attacks_they_overhear_themselves(make_round) -> None:
    poisoned = poison(with_local_data(make_round), attackers=list(range(6)))
    assert len(poisoned) == 6


def test_deterministic_and_without_the_global_random_state(make_round) -> None:
    round = with_local_data(make_round)
    state = torch.get_rng_state()
    first = poison(round)[0]["0.weight"]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, poison(round)[0]["0.weight"])


def test_the_honest_uploads_stay_as_they_are(make_round) -> None:
    round = with_local_data(make_round)
    before = [{name: tensor.clone() for name, tensor in upload.items()} for upload in round.uploads]
    poison(round)
    assert all(torch.equal(u[n], b[n]) for u, b in zip(round.uploads, before, strict=True) for n in b)


def test_ascent_finds_the_far_side_of_a_linear_loss() -> None:
    slope = torch.tensor([3.0, -4.0])
    best = projected_gradient_ascent(lambda w: slope @ w, torch.zeros(2), radius=2.0, changeable=2, steps=5)
    assert best.tolist() == pytest.approx([1.2, -1.6], rel=1e-5)


def test_ascent_keeps_the_best_point_also_when_steps_overshoot() -> None:
    """A peak next to the center: every full step lands beyond it, so the center stays the best."""

    def peak(w):
        return -((w - 0.01) ** 2).sum()

    best = projected_gradient_ascent(peak, torch.zeros(3), radius=1.0, changeable=3, steps=1)
    assert peak(best) >= peak(torch.zeros(3))
    assert torch.equal(best, torch.zeros(3))


def test_only_the_steepest_coordinates_may_change() -> None:
    slope = torch.tensor([0.1, -5.0, 0.2, 4.0])
    best = projected_gradient_ascent(lambda w: slope @ w, torch.ones(4), radius=1.0, changeable=2, steps=5)
    assert (best != 1).tolist() == [False, True, False, True]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_projection_is_the_nearest_point_of_the_ball(values, radius) -> None:
    point = torch.tensor(values, dtype=torch.float64)
    projected = project(point, radius)
    length = point.norm().item()
    expected = point if length <= radius else point / length * radius
    assert torch.allclose(projected, expected, rtol=1e-12)
    assert projected.norm().item() <= radius * (1 + 1e-12)
