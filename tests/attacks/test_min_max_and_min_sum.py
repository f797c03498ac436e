"""Against bisection on explicit distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.attacks.min_max import MinMax
from fedml_gradcam_ae.attacks.min_sum import MinSum
from flat import flat_round, update


def largest_distance(update, benign):
    return max(np.linalg.norm(update - other) for other in benign)


def sum_of_squares(update, benign):
    return sum(np.linalg.norm(update - other) ** 2 for other in benign)


def by_bisection(benign, p, measure):
    """mean + gamma p with the largest gamma for which its measure is not above that of every benign update."""
    mean = benign.mean(axis=0)
    bound = max(measure(row, benign) for row in benign)
    low, high = 0.0, 1.0
    while measure(mean + high * p, benign) <= bound:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(mean + middle * p, benign) <= bound else (low, middle)
    return mean + low * p


DIRECTIONS = {
    "std": lambda benign: -benign.std(axis=0),
    "sign": lambda benign: -np.sign(benign.mean(axis=0)),
    "unit": lambda benign: -benign.mean(axis=0) / np.linalg.norm(benign.mean(axis=0)),
}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    clients=st.integers(2, 9),
    size=st.integers(1, 30),
    shift=st.floats(-3, 3),
    direction=st.sampled_from(sorted(DIRECTIONS)),
)
@pytest.mark.parametrize(("attack", "measure"), [(MinMax, largest_distance), (MinSum, sum_of_squares)])
def test_the_length_is_the_largest_that_fits(
    make_round, attack, measure, seed, clients, size, shift, direction
) -> None:
    generator = np.random.default_rng(seed)
    benign = shift + generator.normal(size=(clients, size)) * generator.exponential(size=(clients, 1))
    round = flat_round(make_round, np.vstack([np.full((1, size), 9.0), benign]), start=0.5)
    (poisoned,) = attack(attack.Settings(direction=direction)).poison(round, [0])
    expected = by_bisection(benign, DIRECTIONS[direction](benign), measure)
    assert update(round, poisoned) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    bound = max(measure(row, benign) for row in benign)
    assert measure(update(round, poisoned), benign) <= bound * (1 + 1e-9)
