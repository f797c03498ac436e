"""The paper's equations on numbers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedml_gradcam_ae.defenses.gradcam_ae.threshold import error_threshold, flag, reconstruction_error, voted_out

MAPS = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[1.0, 1.0], [0.0, 0.0]]]])
BACK = torch.tensor([[[[0.5, 1.0], [0.5, 0.0]]], [[[1.0, 0.0], [0.0, 0.4]]]])


def test_eq_14_absolute_error() -> None:
    # client 1: (0.5 + 0 + 0 + 0.5) / 4; client 2: (0 + 1 + 0 + 0.4) / 4
    assert reconstruction_error(MAPS, BACK).tolist() == pytest.approx([0.25, 0.35])


def test_squared_error_as_in_the_authors_code() -> None:
    # client 1: (0.25 + 0.25) / 4; client 2: (1 + 0.16) / 4
    assert reconstruction_error(MAPS, BACK, "squared").tolist() == pytest.approx([0.125, 0.29])


def test_several_images_count_alike() -> None:
    both = torch.cat([MAPS, MAPS.flip(3)], dim=1), torch.cat([BACK, BACK.flip(3)], dim=1)
    assert reconstruction_error(*both).tolist() == pytest.approx([0.25, 0.35])


def test_eq_15_16_threshold() -> None:
    # mean 2, deviations -1, -1, 2, 0: variance (1 + 1 + 4 + 0) / 4 = 1.5
    errors = torch.tensor([1.0, 1.0, 4.0, 2.0])
    assert error_threshold(errors, 0) == 2
    assert error_threshold(errors, 2) == pytest.approx(2 + 2 * 1.5**0.5)


def test_eq_17_strictly_above() -> None:
    assert flag([0.1, 0.5, 0.3], 0.3) == [False, True, False]


@given(st.integers(1, 19), st.floats(0.2, 3))
def test_breakdown_share_of_two_valued_errors(attackers, alpha) -> None:
    """With a share p of attackers at one larger error, they pass only if p < 1 / (1 + alpha^2)."""
    share = attackers / 20
    if abs(share - 1 / (1 + alpha**2)) < 1e-3:
        return
    errors = torch.tensor([5.0] * attackers + [1.0] * (20 - attackers), dtype=torch.float64)
    flags = flag(errors.tolist(), error_threshold(errors, alpha))
    assert flags == [share < 1 / (1 + alpha**2)] * attackers + [False] * (20 - attackers)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(0, 5))
def test_threshold_equals_numpys(errors, alpha) -> None:
    expected = np.mean(errors) + alpha * np.std(errors)
    assert error_threshold(torch.tensor(errors, dtype=torch.float64), alpha) == pytest.approx(expected, abs=1e-9)


def test_eq_18_19_vote_counts_flags_of_the_last_rounds() -> None:
    flags = {1: {"a", "b"}, 2: {"a"}, 3: {"c", "b"}, 4: {"c"}, 5: set(), 6: {"b", "c"}}
    assert voted_out(flags, number=3, every=3, needed=2) == {"a": 2, "b": 2}
    assert voted_out(flags, number=6, every=3, needed=2) == {"c": 2}
    assert voted_out(flags, number=6, every=3, needed=1) == {"b": 1, "c": 2}
    assert voted_out(flags, number=6, every=6, needed=3) == {"b": 3, "c": 3}


def test_rounds_that_are_missing_count_as_without_flags() -> None:
    assert voted_out({3: {"a"}}, number=3, every=3, needed=2) == {}
