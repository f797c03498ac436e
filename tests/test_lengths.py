"""Lengths of updates against what the clients' samples explain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from fedml_gradcam_ae.defenses.gradcam_ae.lengths import LEAST_SPREAD, excess_lengths

ALL = torch.ones(20, dtype=torch.bool)


def federation(seed: int, spread: float = 0.05, slope: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Lengths that grow with the samples to the power `slope`, and a factor of each client's own."""
    drawn = np.random.default_rng(seed)
    samples = drawn.integers(30, 120, 20).astype(float)
    return torch.from_numpy(samples**slope * np.exp(spread * drawn.standard_normal(20))), torch.from_numpy(samples)


@pytest.mark.parametrize("slope", [0.0, 0.6, 1.0])
def test_what_samples_explain_is_left_out(slope) -> None:
    lengths, samples = federation(1, spread=0.0, slope=slope)
    excess, spread = excess_lengths(lengths, samples, ALL)
    assert excess.abs().max() < 1e-9
    assert spread == LEAST_SPREAD


def test_the_slope_is_the_median_of_all_pairs() -> None:
    lengths, samples = federation(2, spread=0.4)
    claims = np.log(samples.numpy() / samples.median().item())
    logs = lengths.log().numpy()
    slopes = [
        (logs[j] - logs[i]) / (claims[j] - claims[i]) for i in range(20) for j in range(i) if claims[i] != claims[j]
    ]
    expected = logs - np.median(slopes) * claims
    excess, spread = excess_lengths(lengths, samples, ALL)
    assert excess.numpy() == pytest.approx(expected - np.median(expected))
    assert spread == pytest.approx(1.4826 * median_abs_deviation(expected))


def test_scaled_updates_stand_out_whatever_they_claim() -> None:
    lengths, samples = federation(3)
    lengths[:4] *= 5
    for claim in (1.0, 1e6):
        samples[0] = claim
        excess, spread = excess_lengths(lengths, samples, ALL)
        assert (excess[:4] / spread > 5).all()
        assert (excess[4:] / spread < 4).all()


def test_updates_that_are_zero_or_overflow_disturb_nobody() -> None:
    lengths, samples = federation(4)
    before, _ = excess_lengths(lengths, samples, ALL)
    lengths[0], lengths[1] = 0.0, math.inf
    after, spread = excess_lengths(lengths, samples, ALL)
    assert after[0] < -10
    assert after[1] > 100
    assert torch.allclose(after[2:], before[2:], atol=0.2)
    assert math.isfinite(spread)


def test_the_reference_is_that_of_trusted_clients() -> None:
    lengths, samples = federation(5)
    lengths[:12] *= 5
    trusted = torch.arange(20) >= 12
    excess, spread = excess_lengths(lengths, samples, trusted)
    assert (excess[:12] / spread > 5).all()
    assert (excess[12:] / spread).abs().max() < 5


def test_half_of_all_lengths_may_overflow() -> None:
    lengths = torch.tensor([1.0, 1.1, 1.0, math.inf, math.inf, math.nan], dtype=torch.float64)
    excess, spread = excess_lengths(lengths, torch.full((6,), 20.0), torch.ones(6, dtype=torch.bool))
    assert torch.isfinite(excess / spread).all()


@pytest.mark.parametrize("times", [2.6, 3.5, 5])
def test_among_nearly_equal_clients_one_with_many_samples_may_go_far(times) -> None:
    drawn = np.random.default_rng(6)
    samples = torch.from_numpy(drawn.integers(40, 47, 20).astype(float))
    lengths = torch.from_numpy(np.exp(0.05 * drawn.standard_normal(20)))
    samples[0], lengths[0] = 43 * times, times
    excess, spread = excess_lengths(lengths, samples, ALL)
    assert (excess / spread).max() < 4
    samples[0] = 43
    excess, spread = excess_lengths(lengths, samples, ALL)
    assert excess[0] / spread > 5


def test_an_upload_that_equals_the_global_model_moves_no_line() -> None:
    lengths, samples = federation(6)
    still = lengths.clone()
    still[samples.argmax()] = 0
    moved = still > 0
    excess, spread = excess_lengths(still, samples, ALL)
    expected, alone = excess_lengths(lengths, samples, moved)
    assert torch.allclose(excess[moved], expected[moved])
    assert spread == alone
