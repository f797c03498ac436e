"""Objectives whose maximum in a ball is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.maths.ascent import auto_ascent


def test_the_far_side_of_a_linear_objective_is_found() -> None:
    slope = torch.tensor([3.0, -4.0])
    best = auto_ascent(lambda w: slope @ w, torch.zeros(2), radius=2.0, changeable=2, steps=10)
    assert best.tolist() == pytest.approx([1.2, -1.6], rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=4, max_size=4), st.lists(st.floats(1, 10), min_size=4, max_size=4))
def test_a_peak_anywhere_in_the_ball_is_found(place, steepness) -> None:
    """Also right next to the center, where the first steps, as long as the radius, jump over it."""
    top, steepness = torch.tensor(place, dtype=torch.float64), torch.tensor(steepness, dtype=torch.float64)
    best = auto_ascent(
        lambda w: -(steepness * (w - top) ** 2).sum(),
        torch.zeros(4, dtype=torch.float64),
        radius=1.0,
        changeable=4,
        steps=200,
    )
    assert torch.allclose(best, top, atol=0.02)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.01, 10), steps=st.integers(1, 30), changeable=st.integers(1, 6))
def test_the_ball_is_not_left_the_value_does_not_fall_and_the_rest_stays(seed, radius, steps, changeable) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second, center = torch.randn(3, 6, generator=generator, dtype=torch.float64)

    def waves(w):
        return (torch.sin(5 * w * first) * second + first * w).sum()

    best = auto_ascent(waves, center, radius, changeable, steps)
    assert (best - center).norm() <= radius * (1 + 1e-9)
    assert waves(best) >= waves(center)
    assert (best != center).sum() <= changeable


def test_a_cliff_is_climbed_down_again() -> None:
    """Beyond 0.3 there is no number: the climb goes back and on with shorter steps."""

    def cliff(w):
        return (w + 0 * torch.where(w < 0.3, w, torch.full_like(w, math.nan))).sum()

    best = auto_ascent(cliff, torch.zeros(1), radius=1.0, changeable=1, steps=40)
    assert 0.2 < best.item() < 0.3


def test_a_center_without_a_value_is_where_it_stays() -> None:
    center = torch.ones(2)
    best = auto_ascent(lambda w: (w * math.nan).sum(), center, radius=1.0, changeable=2, steps=5)
    assert torch.equal(best, center)
