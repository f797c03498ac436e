import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from fedml_gradcam_ae.maths.gap_statistic import count_clusters
from fedml_gradcam_ae.networks.images import seeded_generator


def count(values, most: int = 7, references: int = 10, seed: int = 0) -> int:
    return count_clusters(torch.tensor(values, dtype=torch.float64), most, references, seeded_generator(seed))


def by_the_book(values, most: int, references: int, seed: int) -> int:
    """The definition, k-means by scikit-learn, on the same uniform numbers."""
    uniform = torch.rand(references, len(values), generator=seeded_generator(seed), dtype=torch.float64).numpy()
    scaled = (np.array(values) - np.min(values)) / np.ptp(values)

    def log_inertia(numbers, k):
        return np.log(KMeans(k, n_init=10, random_state=0).fit(numbers[:, None]).inertia_)

    gaps, deviations = [], []
    for k in range(1, most + 1):
        logs = [log_inertia(numbers, k) for numbers in uniform]
        gaps.append(np.mean(logs) - log_inertia(scaled, k))
        deviations.append(np.std(logs) * np.sqrt(1 + 1 / references))
    return next((k for k in range(1, most) if gaps[k - 1] >= gaps[k] - deviations[k]), most)


@pytest.mark.parametrize(("low", "high"), [(20, 0), (16, 4), (9, 11), (7, 0)])
def test_as_by_the_book(low, high) -> None:
    rng = np.random.default_rng(low)
    values = np.concatenate([rng.normal(1, 0.1, low), rng.normal(3, 0.1, high)]).tolist()
    assert count(values, most=4, references=5, seed=3) == by_the_book(values, 4, 5, 3)


def test_as_by_the_book_with_few_references_where_their_spread_decides() -> None:
    rng = np.random.default_rng(1)
    found = []
    for seed in range(25):
        values = rng.uniform(size=7).tolist()
        found.append(count(values, most=3, references=2, seed=seed))
        assert found[-1] == by_the_book(values, 3, 2, seed)
    assert set(found) == {1, 2}


def test_two_groups_are_more_than_one_cluster_and_one_is_one() -> None:
    rng = np.random.default_rng(0)
    one = np.linspace(1, 1.2, 20) + rng.uniform(0, 0.01, 20)
    assert count(one) == 1
    assert count([*one[:16], *(one[16:] + 2)]) > 1
    assert count([*one[:18], *(one[18:] * 1e30)]) > 1
    assert count([1.0, 1.0, 1.0, 1.0, 5.0, 5.0]) == 2


@pytest.mark.parametrize("values", [[1.0], [1.0, 9.0], [3.0] * 9, [1, 1 + 1e-14, 1 - 1e-14, 1, 1], [0.0] * 4])
def test_too_few_points_and_equal_ones_are_one_cluster(values) -> None:
    assert count(values) == 1


def test_the_generator_is_the_only_randomness() -> None:
    state = torch.get_rng_state()
    values = np.random.default_rng(4).uniform(size=15)
    assert count(values) == count(values)
    assert torch.equal(state, torch.get_rng_state())
