import byzfl
import numpy as np
import pytest
from scipy.stats import norm

from fedml_gradcam_ae.attacks.alie import ALittleIsEnough, largest_z
from flat import flat_round, update


@pytest.mark.parametrize("z", [0.3, 1.5, -2.0])
def test_byzfl_agrees_once_its_shift_points_down_and_its_deviation_is_the_populations(make_round, z) -> None:
    benign = np.random.default_rng(3).normal(size=(5, 40))
    round = flat_round(make_round, np.vstack([np.ones((2, 40)), benign]), start=0.7)
    poisoned = ALittleIsEnough(ALittleIsEnough.Settings(z=z)).poison(round, [0, 1])
    expected = byzfl.ALittleIsEnough(tau=-z * np.sqrt(4 / 5))(benign)
    assert update(round, poisoned[1]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_papers_formula() -> None:
    assert largest_z(20, 2) == 0  # half of the benign clients have to be outdone
    for clients, attackers, outdone in [(50, 24, 2), (20, 8, 3), (10, 4, 2), (101, 30, 21)]:
        benign = clients - attackers
        assert largest_z(clients, attackers) == pytest.approx(norm.ppf((benign - outdone) / benign))


def test_the_formula_never_turns_the_attack_around_and_is_always_a_number() -> None:
    values = [largest_z(n, m) for n in range(1, 30) for m in range(1, n + 1)]
    assert min(values) == 0
    assert np.isfinite(values).all()


def test_auto_takes_the_formula(make_round) -> None:
    drawn = np.random.default_rng(3).normal(size=(10, 30))
    round = flat_round(make_round, drawn)
    poisoned = ALittleIsEnough(ALittleIsEnough.Settings(z="auto")).poison(round, [0, 1, 2, 3])
    benign = drawn[4:]
    expected = benign.mean(axis=0) - norm.ppf(4 / 6) * benign.std(axis=0)
    assert update(round, poisoned[0]) == pytest.approx(expected)
