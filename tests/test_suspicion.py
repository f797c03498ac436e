"""The parts of the robust profile's evidence against numpy, scipy and scikit-learn."""

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from scipy.stats import median_abs_deviation, norm
from sklearn.metrics.pairwise import cosine_similarity

from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    agreement,
    differences,
    distance_ratios,
    groups,
    in_units_of_mad,
    layer_deviations,
    median_and_spread,
    tracking,
    tracking_by_chance,
    z_score_exceeded_by,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_differences_are_those_of_the_class_probabilities() -> None:
    maps, reference = random(3, 2, 5, 4, 4), random(2, 5, 4, 4, seed=1)
    shifted = maps + random(3, 2, 1, 4, 4, seed=2)  # the same for all classes: softmax does not see it
    found = differences(shifted, reference)
    assert torch.allclose(found, differences(maps, reference))
    log_odds = (shifted - shifted[:, :, :1]) - (reference - reference[:, :1])
    assert torch.allclose(found - found[:, :, :1], log_odds)


@pytest.mark.parametrize("clients", [2, 5, 8])
def test_distance_ratios(clients) -> None:
    changes = random(clients, 7)
    distances = cdist(changes, changes)
    for i in range(clients):
        others = np.delete(distances[i], i)
        expected = others / np.median(others)
        assert np.allclose(np.delete(distance_ratios(changes)[i].numpy(), i), expected)
        assert distance_ratios(changes)[i, i] == np.inf


def test_distance_ratios_do_not_depend_on_the_scale_or_on_a_common_shift() -> None:
    changes = random(6, 9)
    assert torch.allclose(distance_ratios(changes), distance_ratios(1e4 * changes + random(1, 9, seed=3)))


def test_tracking_is_a_mean_of_cosines_over_layers() -> None:
    layers, trusted = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([True, True, False, True, True])
    measured, stored = random(5, 7, seed=1), random(5, 7, seed=2)
    moved = [values.numpy() - np.median(values.numpy()[trusted.numpy()], axis=0) for values in (measured, stored)]
    cosines = [cosine_similarity(moved[0][:, of], moved[1][:, of]).diagonal() for of in (slice(0, 3), slice(3, 7))]
    assert np.allclose(tracking(measured, stored, layers, trusted), np.mean(cosines, axis=0))


def test_layer_deviations_are_in_units_of_the_usual_one_in_each_layer() -> None:
    measured, layers = np.random.default_rng(4).normal(size=(7, 10)) * ([1] * 4 + [50] * 6), np.array([0] * 4 + [1] * 6)
    found = layer_deviations(torch.from_numpy(measured), torch.from_numpy(layers)).numpy()
    for layer in (0, 1):
        moved = (measured - np.median(measured, axis=0))[:, layers == layer]
        assert found[:, layers == layer] == pytest.approx(moved / np.median(np.linalg.norm(moved, axis=1)))
    assert not layer_deviations(torch.ones(5, 3), torch.zeros(3).long()).any()


def test_statistics_that_nobody_moved_follow_nothing() -> None:
    assert tracking(random(5, 4), torch.ones(5, 4), torch.zeros(4).long(), torch.ones(5).bool()).tolist() == [0] * 5


def test_where_all_upload_the_same_there_is_nothing_to_compare_with() -> None:
    assert (distance_ratios(torch.ones(5, 3)) == np.inf).all()


@given(st.integers(1, 9), st.integers(0, 999), st.floats(0, 0.5))
def test_groups_are_connected_components(clients, seed, share) -> None:
    near = torch.rand(clients, clients, generator=torch.Generator().manual_seed(seed)) < share
    found = groups(near)
    number, labels = connected_components(near.numpy(), directed=False)
    assert sorted(client for group in found for client in group) == list(range(clients))
    assert len(found) == number
    assert all(len(set(labels[group])) == 1 for group in found)


def test_median_and_spread_are_the_trusted_clients() -> None:
    values, trusted = random(9), torch.tensor([True] * 7 + [False] * 2)
    center, spread = median_and_spread(values, trusted)
    assert float(center) == pytest.approx(np.median(values[:7]))
    assert float(spread) == pytest.approx(median_abs_deviation(values[:7], scale="normal"), rel=1e-4)
    assert float(median_and_spread(torch.ones(9), trusted)[1]) > 0


def test_deviations_are_in_units_of_the_trusted_clients_mad() -> None:
    changes, trusted = random(8, 3, 4), torch.tensor([True] * 6 + [False] * 2)
    among = changes[:6].numpy()
    centered = changes.numpy() - np.median(among, axis=0)
    spread = 1.4826 * np.median(np.abs(centered[:6]).reshape(-1, 4), axis=0).mean()
    assert np.allclose(in_units_of_mad(changes, trusted, limit=1.5), np.clip(centered / spread, -1.5, 1.5))


def test_how_well_statistics_track_by_chance() -> None:
    layers = torch.tensor([0] * 10 + [1] * 40 + [2] * 100)
    tracked = tracking(random(5000, 150, seed=1), random(5000, 150, seed=2), layers, torch.ones(5000, dtype=torch.bool))
    assert float(tracked.std()) == pytest.approx(tracking_by_chance(layers), rel=0.05)


@pytest.mark.parametrize("clients", [7, 20])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_the_z_score_that_a_share_of_normal_values_exceeds(clients, rate) -> None:
    values = np.random.default_rng(5).standard_normal((100_000, clients))
    scores = (values - np.median(values, axis=1, keepdims=True)) / median_abs_deviation(values, axis=1, scale="normal")[
        :, None
    ]
    assert (scores > z_score_exceeded_by(rate, clients)).mean() == pytest.approx(rate, rel=0.1)


def test_among_very_many_it_is_the_normal_distributions() -> None:
    assert z_score_exceeded_by(0.01, 500) == pytest.approx(norm.isf(0.01), rel=0.02)


def test_agreement_is_the_cosine_with_the_mean_direction_of_the_others() -> None:
    changes = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 30)) + 0.3)
    changes[4] = 0
    trusted = torch.tensor([True] * 6 + [False] * 3)
    found = agreement(changes @ changes.T, trusted)
    assert found[4] == 0
    for client in (0, 1, 2, 3, 5, 6, 7, 8):
        others = [changes[j] / changes[j].norm() for j in (0, 1, 2, 3, 5) if j != client]
        expected = scipy.spatial.distance.cosine(changes[client], sum(others))
        assert float(found[client]) == pytest.approx(1 - expected, abs=1e-12)
    products = changes @ changes.T
    products[2, :] = products[:, 2] = torch.inf
    finite = agreement(products, trusted)
    assert finite[2] == 0
    assert torch.isfinite(finite).all()
