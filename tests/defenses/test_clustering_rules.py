"""Clustering by cosine similarity and clipped clustering against scipy's clustering and all bipartitions."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fedml_gradcam_ae.defenses.clipped_clustering import ClippedClustering
from fedml_gradcam_ae.defenses.cosine_clustering import CosineClustering
from judging import check_awkward
from vectors import aggregate, round_of, rows_of


def cosine(**params) -> CosineClustering:
    return CosineClustering(CosineClustering.Settings(**params))


def clipped(**params) -> ClippedClustering:
    return ClippedClustering(ClippedClustering.Settings(**params))


def similarities(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def outside_the_larger(rows: np.ndarray, method: str) -> list[bool]:
    distances = 1 - similarities(rows)
    np.fill_diagonal(distances, 0)
    labels = fcluster(linkage(squareform(distances, checks=False), method), 2, "maxclust")
    larger = 1 if 2 * (labels == 1).sum() > len(labels) else 2
    assert 2 * (labels == 1).sum() != len(labels), "a tie: choose other rows"
    return (labels != larger).tolist()


def draw(seed: int, clients: int = 11, others: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(clients, 40)) + 0.8
    rows[:others] = generator.normal(size=(others, 40)) - 0.8
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_the_larger_of_scipys_clusters_is_averaged_by_samples(seed) -> None:
    rows, samples = draw(seed), np.arange(1.0, 12.0)
    round = round_of(rows, samples)
    exact = rows_of(round)
    for method in ("complete", "single"):
        verdict = cosine(linkage=method, threshold=1.0).judge(round)
        out = np.array(outside_the_larger(exact, method))
        assert verdict.excluded == verdict.flagged == out.tolist()
        expected = (samples * ~out) @ exact / (samples * ~out).sum()
        assert np.allclose(aggregate(round, verdict), expected)
        assert verdict.scores == pytest.approx((1 - similarities(exact))[:, ~out].mean(axis=1).tolist())


@pytest.mark.parametrize("seed", range(5))
def test_single_linkage_finds_the_papers_bipartition(seed) -> None:
    """Of all bipartitions, the one whose largest similarity across is the smallest."""
    rows = draw(seed, clients=8, others=2)
    alike = similarities(rows)
    parts = [set(part) for size in range(1, 5) for part in combinations(range(8), size)]

    def across(part):
        return max(alike[i, j] for i in part for j in set(range(8)) - part)

    best = min(parts, key=across)
    verdict = cosine(linkage="single", threshold=1.0).judge(round_of(rows))
    found = {client for client, out in enumerate(verdict.excluded) if out}
    assert found in (best, set(range(8)) - best)
    limit = across(best)
    assert any(cosine(linkage="single", threshold=limit + 1e-6).judge(round_of(rows)).excluded)
    assert not any(cosine(linkage="single", threshold=limit - 1e-6).judge(round_of(rows)).excluded)


def test_clients_that_are_alike_are_not_split_and_reversed_ones_are_left_out() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 30)) + 1
    assert not any(cosine().judge(round_of(rows)).excluded)
    rows[[2, 5, 6]] *= -40
    assert [i for i, out in enumerate(cosine().judge(round_of(rows)).excluded) if out] == [2, 5, 6]


@pytest.mark.parametrize("seed", range(8))
def test_the_larger_cluster_is_clipped_to_the_median_of_all_lengths_so_far(seed) -> None:
    defense, norms = clipped(), []
    for number in (1, 2, 3):
        rows = draw(10 * seed + number) * number
        round = round_of(rows, samples=range(1, 12), number=number)
        exact = rows_of(round)
        lengths = np.linalg.norm(exact, axis=1)
        norms.extend(lengths)
        out = np.array(outside_the_larger(exact, "average"))
        short = exact * np.minimum(1, np.median(norms) / lengths)[:, None]
        verdict = defense.judge(round)
        assert verdict.excluded == out.tolist()
        assert np.allclose(aggregate(round, verdict), short[~out].mean(axis=0))
        assert verdict.scores == pytest.approx((1 - similarities(exact))[:, ~out].mean(axis=1).tolist())


def test_somebody_is_always_left_out() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 30)) + 1
    assert 1 <= sum(clipped().judge(round_of(rows)).excluded) <= 5
    assert clipped().judge(round_of(rows[:1])).excluded == [False]
    assert clipped().judge(round_of(rows[:2])).excluded == [False, True]


def test_the_length_to_clip_to_has_a_cap() -> None:
    round = round_of(np.full((3, 4), 1e7))
    assert np.linalg.norm(aggregate(round, clipped().judge(round))) == pytest.approx(1e5)


def test_lengths_survive_a_restart() -> None:
    rounds = [round_of(draw(number) * 10.0**number, number=number) for number in (1, 2, 3)]
    through, again, fresh = clipped(), clipped(), clipped()
    for round in rounds[:2]:
        through.judge(round)
    again.restore(through.state())
    expected = through.judge(rounds[2]).model
    found, unlike = again.judge(rounds[2]).model, fresh.judge(rounds[2]).model
    assert torch.equal(found["first"], expected["first"])
    assert not torch.equal(unlike["first"], expected["first"])


def test_awkward_rounds(make_round) -> None:
    check_awkward(cosine, make_round)
    check_awkward(lambda: cosine(linkage="single", threshold=1.0), make_round)
    check_awkward(clipped, make_round)
