"""Geometric median and centered clipping against ByzFL and scipy."""

import byzfl
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from scipy.optimize import minimize

from fedml_gradcam_ae.defenses.centered_clipping import CenteredClipping, clipping_coefficients
from fedml_gradcam_ae.defenses.geometric_median import GeometricMedian
from vectors import aggregate, matrices, round_of, rows_of, samples


def geometric_median(round, **params):
    return GeometricMedian(GeometricMedian.Settings(**params)).judge(round)


def cost(rows, shares, point):
    return float(np.sum(shares * np.linalg.norm(rows - point, axis=1)))


@settings(max_examples=40, deadline=None)
@given(rows=matrices(), counts=samples)
def test_no_point_that_scipy_finds_is_nearer_to_all_uploads(rows, counts) -> None:
    counts = np.array(counts[: len(rows)])
    round = round_of(rows, counts)
    exact = rows_of(round)
    spread = max(1e-9, np.abs(exact).max())
    for weighting, shares in (("samples", counts / counts.sum()), ("equal", np.ones(len(rows)) / len(rows))):
        verdict = geometric_median(round, weighting=weighting, smoothing=1e-6 * spread, iterations=3000)
        found = aggregate(round, verdict)
        assert sum(verdict.weights) == pytest.approx(1)
        assert np.allclose(verdict.scores, np.linalg.norm(exact - found, axis=1), atol=1e-5 * spread)
        starts = [found, exact.mean(axis=0), *exact]
        best = min(minimize(lambda z: cost(exact, shares, z), start, method="Powell").fun for start in starts[:3])  # noqa: B023
        best = min([best, *(cost(exact, shares, row) for row in exact)])
        assert cost(exact, shares, found) <= best + 1e-4 * spread


@pytest.mark.parametrize("clients", [4, 9])
def test_the_same_steps_lead_where_byzfls_lead(clients) -> None:
    torch.manual_seed(clients)
    round = round_of(torch.randn(clients, 20, dtype=torch.float64))
    exact = torch.from_numpy(rows_of(round))
    found = aggregate(round, geometric_median(round, smoothing=0.1, iterations=3000))
    assert np.allclose(found, byzfl.GeometricMedian(nu=0.1, T=3000)(exact).numpy(), atol=1e-6)


def test_a_minority_far_away_hardly_moves_the_geometric_median() -> None:
    torch.manual_seed(0)
    rows = torch.randn(10, 50, dtype=torch.float64)
    honest = rows[:6].mean(dim=0).numpy()
    rows[6:] += 1e6
    found = aggregate(round_of(rows), geometric_median(round_of(rows)))
    assert np.linalg.norm(found - honest) < 20


@pytest.mark.parametrize("length", [1e18, 1e38])
@pytest.mark.parametrize("clients", [3, 4, 10])
def test_one_update_of_any_length_pulls_by_its_direction_alone(clients, length) -> None:
    """Oracle: the distance to a point far off along e grows by -<e, z>; the rest is scipy's."""
    torch.manual_seed(clients)
    rows = torch.randn(clients, 12, dtype=torch.float64)
    rows[-1] *= length / rows[-1].norm()
    round = round_of(rows)
    exact = rows_of(round)
    far, near = exact[-1] / np.linalg.norm(exact[-1]), exact[:-1]

    def cost_of(z):
        return float(np.linalg.norm(near - z, axis=1).sum() - far @ z)

    best = minimize(cost_of, near.mean(axis=0), method="BFGS", options={"gtol": 1e-9})

    weights = geometric_median(round).weights
    found = np.asarray(weights[:-1]) @ near + weights[-1] * exact[-1]
    assert cost_of(found) <= best.fun + 1e-6
    assert np.linalg.norm(found - best.x) < 1e-3


def clip(round, defense):
    return aggregate(round, defense.judge(round))


@pytest.mark.parametrize("tau", [0.5, 4.0, 1000.0])
@pytest.mark.parametrize("iterations", [1, 3])
def test_clipping_over_rounds_is_byzfls(tau, iterations) -> None:
    ours = CenteredClipping(CenteredClipping.Settings(tau=tau, iterations=iterations))
    theirs = byzfl.CenteredClipping(L=iterations, tau=tau)
    for number in range(1, 5):
        torch.manual_seed(number)
        round = round_of(torch.randn(7, 20, dtype=torch.float64) + 1, number=number)
        assert np.allclose(clip(round, ours), theirs(torch.from_numpy(rows_of(round))).numpy(), atol=1e-9)


_NEARLY_PARALLEL = [[7, 1e-5, 1e-5], [4, 1e-5, 1e-5], [1e-5, 1e-5, 0], [1e-5, 1e-5, 0], [1e-5, 1e-5, 8]]


@settings(max_examples=40, deadline=None)
@given(rows=matrices(least=1))
@example(rows=np.array(_NEARLY_PARALLEL, dtype=np.float32))
def test_the_median_radius_is_the_median_distance(rows) -> None:
    exact = rows.astype(np.float64)
    coefficients, distances = clipping_coefficients(torch.from_numpy(exact @ exact.T), None, 1)
    lengths = np.linalg.norm(exact, axis=1)
    assert np.allclose(distances.numpy(), lengths, atol=1e-6 * max(1e-9, lengths.max()))
    expected = [1.0 if n <= np.median(lengths) else np.median(lengths) / n for n in lengths]
    assert np.allclose(coefficients.numpy() * len(rows), expected)


def test_what_was_carried_survives_a_restart() -> None:
    first, second = (CenteredClipping(CenteredClipping.Settings(tau=0.5)) for _ in range(2))
    rounds = [round_of(torch.randn(5, 8, generator=torch.Generator().manual_seed(n)), number=n) for n in (1, 2)]
    first.judge(rounds[0])
    second.restore(first.state())
    fresh = CenteredClipping(CenteredClipping.Settings(tau=0.5))
    expected = clip(rounds[1], first)
    assert np.array_equal(clip(rounds[1], second), expected)
    assert not np.allclose(clip(rounds[1], fresh), expected)


def test_statistics_are_the_median_of_all_uploads() -> None:
    round = round_of(torch.randn(5, 4))
    model = CenteredClipping(CenteredClipping.Settings()).judge(round).model
    assert model["statistic"].tolist() == [2.0, 2.0]
    assert model["batches"].item() == 20


def test_a_radius_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="tau must be above 0, or `median`, found -1"):
        CenteredClipping.Settings(tau=-1.0)
