"""Against a search with explicit vectors and a Krum of loops; trimmed mean by the interval that is drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.attacks.fang import Fang
from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from fedml_gradcam_ae.defenses.shared.krum_scores import krum_scores
from flat import flat_round, update


def naive_scores(vectors, f):
    neighbors = max(1, len(vectors) - f - 2)
    return [
        sum(sorted(float(((a - b) ** 2).sum()) for j, b in enumerate(vectors) if j != i)[:neighbors])
        for i, a in enumerate(vectors)
    ]


def naive_step(honest, signs, copies):
    """lambda, or the first one below 1e-5."""
    step = 1.0
    while step >= 1e-5:
        scores = naive_scores([*honest, *[-step * signs] * copies], copies)
        if int(np.argmin(scores)) >= len(honest):
            return step
        step /= 2
    return step


def poison(round, positions, **params):
    return [update(round, upload) for upload in Fang(Fang.Settings(**params)).poison(round, positions)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), clients=st.integers(2, 9), f=st.integers(0, 4), size=st.integers(1, 5))
def test_krum_scores_are_those_of_loops(seed, clients, f, size) -> None:
    vectors = np.random.default_rng(seed).normal(size=(clients, size))
    distances = ((vectors[:, None] - vectors) ** 2).sum(axis=2)
    assert krum_scores(torch.tensor(distances), f).numpy() == pytest.approx(naive_scores(vectors, f))


def some_updates(seed, clients, size):
    """A common change and a scatter of very different sizes, so that very different steps are found."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=size) * 10 ** generator.uniform(-3, 0.5)
    return common + generator.normal(size=(clients, size)) * 10 ** generator.uniform(-4, 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), benign=st.integers(3, 9), attackers=st.integers(1, 4), size=st.integers(2, 20))
def test_krum_full_knowledge_finds_the_step_of_an_explicit_search(make_round, seed, benign, attackers, size) -> None:
    drawn = some_updates(seed, benign + attackers, size)
    round = flat_round(make_round, drawn)
    signs = np.sign(drawn[attackers:].mean(axis=0))
    expected = -naive_step(list(drawn[attackers:]), signs, attackers) * signs
    for found in poison(round, list(range(attackers)), rule="krum"):
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_explicit_search_meets_steps_of_all_kinds() -> None:
    """The test above would say little if the first step always fitted."""
    steps = set()
    for seed in range(60):
        drawn = some_updates(seed, 8, 10)
        steps.add(naive_step(list(drawn), np.sign(drawn.mean(axis=0)), 2))
    assert 1.0 in steps
    assert min(steps) < 1e-5
    assert len(steps) > 5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), attackers=st.integers(1, 7), size=st.integers(2, 20))
def test_krum_partial_knowledge_adds_copies_until_one_is_picked(make_round, seed, attackers, size) -> None:
    drawn = some_updates(seed, attackers + 3, size)
    own = drawn[:attackers]
    signs = np.sign(own.mean(axis=0))
    steps = (naive_step(list(own), signs, copies) for copies in range(1, 20))
    expected = -next(step for step in steps if step >= 1e-5) * signs
    for found in poison(flat_round(make_round, drawn), list(range(attackers)), rule="krum", knowledge="partial"):
        assert found == pytest.approx(expected, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), attackers=st.integers(1, 4))
def test_trimmed_mean_full_knowledge_lies_just_beyond_the_benign_extreme(make_round, seed, attackers) -> None:
    generator = np.random.default_rng(seed)
    benign = generator.normal(size=(6, 40)) + 2 * generator.normal(size=40)
    round = flat_round(make_round, np.vstack([np.zeros((attackers, 40)), benign]))
    found = poison(round, list(range(attackers)), rule="trimmed_mean")
    for column in range(40):
        smallest, largest, mean = benign[:, column].min(), benign[:, column].max(), benign[:, column].mean()
        if mean > 0:
            low, high = (smallest / 2, smallest) if smallest > 0 else (2 * smallest, smallest)
        else:
            low, high = (largest, 2 * largest) if largest > 0 else (largest, largest / 2)
        assert all(low <= row[column] <= high for row in found)
    assert all(not np.allclose(found[0], other) for other in found[1:])


def test_trimmed_mean_partial_knowledge_lies_three_to_four_deviations_off(make_round) -> None:
    drawn = np.random.default_rng(1).normal(size=(6, 300)) + 0.3
    own = drawn[[1, 2, 4]]
    found = poison(flat_round(make_round, drawn), [1, 2, 4], rule="trimmed_mean", knowledge="partial", attackers=3)
    factors = np.array([(own.mean(axis=0) - row) / (np.sign(own.mean(axis=0)) * own.std(axis=0)) for row in found])
    assert factors.min() >= 3 - 1e-9
    assert factors.max() <= 4 + 1e-9
    assert factors.max() - factors.min() > 0.95
    assert not np.allclose(factors[0], factors[1])


def test_weights_that_nobody_moved_stay(make_round) -> None:
    drawn = np.random.default_rng(1).normal(size=(6, 30))
    drawn[:, ::3] = 0
    for params in (
        {"rule": "krum"},
        {"rule": "trimmed_mean"},
        {"rule": "trimmed_mean", "knowledge": "partial", "attackers": 2},
    ):
        for found in poison(flat_round(make_round, drawn), [0, 1], **params):
            assert not found[::3].any()
            assert found[1::3].all()


def test_a_lone_attacker_cannot_estimate_a_deviation(make_round) -> None:
    """Refused where it can be known at the start; in a round that only one of them was sampled for, it stays honest."""
    params = {"rule": "trimmed_mean", "knowledge": "partial"}
    for alone in (1, [7]):
        with pytest.raises(SettingsError, match="takes at least two attackers"):
            read_settings(Fang.Settings, {"attackers": alone, **params}, "attack_params", "fang")
    round = make_round()
    attack = Fang(Fang.Settings(**{"attackers": 2, **params}))
    (upload,) = attack.poison(round, [3])
    assert all(torch.allclose(upload[name], tensor) for name, tensor in round.uploads[3].items())
