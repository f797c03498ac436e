from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from fedml_gradcam_ae.maths.kmeans_1d import least_inertias, two_means


def inertia(groups) -> float:
    return sum(float(np.sum((np.array(group) - np.mean(group)) ** 2)) for group in groups if len(group))


def best_by_brute_force(values, clusters: int) -> float:
    """Every assignment of the points to clusters, runs of the ordered points or not."""
    labels = itertools.product(range(clusters), repeat=len(values))
    return min(
        inertia([[v for v, c in zip(values, row, strict=True) if c == k] for k in range(clusters)]) for row in labels
    )


@pytest.mark.parametrize("points", [2, 5, 20, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_means_are_never_worse_than_scikit_learns_best_of_many_starts(points, dtype) -> None:
    values = torch.randn(points, 8, generator=torch.Generator().manual_seed(points), dtype=dtype)
    values[: points // 3] += 3
    found = two_means(values)
    for column in range(8):
        data = values[:, column].double().numpy()[:, None]
        theirs = KMeans(2, n_init=30, random_state=0).fit(data)
        assert found.inertia[column] <= theirs.inertia_ * (1 + 1e-9) + 1e-12
        high, low = data[found.high[:, column]], data[~found.high[:, column]]
        assert found.high_center[column] == pytest.approx(high.mean())
        assert found.low_center[column] == pytest.approx(low.mean())
        assert found.inertia[column] == pytest.approx(inertia([high, low]), rel=1e-9, abs=1e-12)
        assert low.max() < high.min()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 0.75, 3.0, 100.0]), min_size=1, max_size=7))
def test_two_means_and_the_dynamic_program_agree_with_brute_force_also_on_ties(values) -> None:
    column = torch.tensor(values, dtype=torch.float64)
    two = best_by_brute_force(values, 2)
    found = two_means(column[:, None])
    high = found.high[:, 0].numpy()
    split = [np.array(values)[high], np.array(values)[~high]]
    assert float(found.inertia) == pytest.approx(two, abs=1e-9)
    assert inertia(split) == pytest.approx(two, abs=1e-9)
    expected = [inertia([values]), two, best_by_brute_force(values, 3)]
    assert least_inertias(column, 3).tolist() == pytest.approx(expected, abs=1e-9)


def test_columns_do_not_influence_each_other() -> None:
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[:, 2] *= 1e30
    together = two_means(values)
    for column in range(4):
        alone = two_means(values[:, column : column + 1])
        assert torch.equal(together.high[:, column], alone.high[:, 0])
        assert together.high_center[column] == pytest.approx(float(alone.high_center))


def test_the_minority_is_the_smaller_cluster_and_nobody_where_both_are_of_one_size_or_all_are_equal() -> None:
    values = torch.tensor([[0, 0, 0, 7], [0, 0, 5, 7], [0, 5, 5, 7], [0, 5, 5, 7], [9, 5, 5, 7], [9, 0, 5, 7]]).double()
    expected = [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert two_means(values).minority.int().tolist() == expected


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 1e200])
def test_equal_points_are_one_cluster_with_both_centers_there(value) -> None:
    found = two_means(torch.full((7, 1), value, dtype=torch.float64))
    assert not found.high.any()
    assert float(found.low_center) == pytest.approx(value)
    assert float(found.high_center) == pytest.approx(value)


def test_one_far_point_is_a_cluster_of_its_own_at_any_distance() -> None:
    values = torch.tensor([[0.1], [0.3], [1e30], [0.2]])
    assert two_means(values).high[:, 0].tolist() == [False, False, True, False]
    assert two_means(-values).high[:, 0].tolist() == [True, True, False, True]


@pytest.mark.parametrize("points", [8, 21, 60])
def test_more_clusters_are_never_worse_than_scikit_learns(points) -> None:
    values = np.random.default_rng(points).gamma(2, size=points)
    ours = least_inertias(torch.tensor(values), 7)
    theirs = [KMeans(k, n_init=20, random_state=0).fit(values[:, None]).inertia_ for k in range(1, 8)]
    assert ours[0] == pytest.approx(theirs[0])
    assert all(own <= other * (1 + 1e-9) for own, other in zip(ours.tolist(), theirs, strict=True))
    assert all(own >= 0.5 * other for own, other in zip(ours.tolist(), theirs, strict=True))  # and no wonder


def test_many_sets_of_numbers_at_once() -> None:
    sets = torch.rand(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(least_inertias(sets, 4), torch.stack([least_inertias(row, 4) for row in sets]))


def test_with_as_many_clusters_as_different_points_nothing_is_left() -> None:
    values = torch.tensor([0.1, 0.3, 0.1, 0.7, 0.3], dtype=torch.float64)
    left = least_inertias(values, 7)
    assert left[1] > 0
    assert left[2:].tolist() == [0] * 5
