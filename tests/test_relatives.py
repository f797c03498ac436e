"""Groups of updates with more in common than labels explain, against a slow computation by scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.linear_model import LinearRegression
from torch import nn

from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Directions
from fedml_gradcam_ae.defenses.gradcam_ae.relations import (
    BY_CHANCE,
    COORDINATES,
    RIVAL,
    by_chance,
    directions_of,
    relation_scores,
)
from fedml_gradcam_ae.defenses.gradcam_ae.relatives import most_related, residual_cosines
from judging import matrix, round_of
from tiny import tiny_cnn

CLIENTS, CLASSES = 20, 10
MARGIN = GradCAMAE.Settings().relation_margin


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def federation(seed: int, attackers: int = 0, strength: float = 1.0, of_labels: float = 0.0, clients: int = CLIENTS):
    """Updates (clients, 300) with a common direction, and label shifts (clients, classes) that add to them."""
    labels = noise(clients, CLASSES, seed=seed + 500)
    updates = noise(clients, 300, seed=seed) + 0.5 * noise(300, seed=seed + 1)
    updates += of_labels * labels @ noise(CLASSES, 300, seed=seed + 2)
    updates[:attackers] += strength * noise(300, seed=seed + 3)
    return updates, labels


def directions(updates: torch.Tensor, labels: torch.Tensor) -> Directions:
    return Directions(updates @ updates.T, labels @ labels.T)


def suspects(updates: torch.Tensor, labels: torch.Tensor) -> list[int]:
    return relation_scores(directions(updates, labels), MARGIN, torch.ones(len(updates))).gt(1).nonzero()[:, 0].tolist()


def cosines_by_numpy(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    less = unit - unit.mean(axis=0)
    return np.corrcoef(np.hstack([less, -less])) if len(less) else less  # rows of mean 0: the cosine


def slowly(seen: np.ndarray, explaining: np.ndarray) -> dict[frozenset[int], float]:
    """The strength of every candidate, each by a regression of its own."""
    clients = len(seen)
    pairs = [(i, j) for i in range(clients) for j in range(i)]
    x, y = (np.array([values[pair] for pair in pairs]) for values in (explaining, seen))
    line = LinearRegression(positive=True).fit(x[:, None], y)
    residuals = np.clip(seen - line.intercept_ - line.coef_[0] * explaining, -1, 1)
    distances = 1 - residuals
    np.fill_diagonal(distances, 0)
    tree = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=0).fit(distances)
    members, found = [{client} for client in range(clients)], {}
    for first, second in tree.children_:
        group = members[first] | members[second]
        members.append(group)
        if len(group) >= clients / 2:
            continue
        inside = np.array([i in group and j in group for i, j in pairs])
        outside = np.array([i not in group and j not in group for i, j in pairs])
        line = LinearRegression(positive=True).fit(x[outside, None], y[outside])
        left = y - line.predict(x[:, None])
        found[frozenset(group)] = left[inside].mean() * math.sqrt(inside.sum()) / left[outside].std()
    return found


@pytest.mark.parametrize("attackers", [0, 2, 4, 9])
@pytest.mark.parametrize("of_labels", [0.0, 1.0])
def test_groups_and_strengths_are_those_of_a_slow_computation(attackers, of_labels) -> None:
    updates, labels = federation(7, attackers, of_labels=of_labels)
    seen, explaining = residual_cosines(updates @ updates.T), residual_cosines(labels @ labels.T)
    assert seen.numpy() == pytest.approx(cosines_by_numpy(updates.numpy()), abs=1e-9)
    assert explaining.numpy() == pytest.approx(cosines_by_numpy(labels.numpy()), abs=1e-9)
    slow = slowly(seen.numpy(), explaining.numpy())
    found = most_related(seen, explaining)
    best = frozenset(found.members.nonzero()[:, 0].tolist())
    assert best == max(slow, key=slow.__getitem__)
    assert found.strength == pytest.approx(slow[best])
    assert found.rival == pytest.approx(max(0, *(value for group, value in slow.items() if not group & best)))
    for client in range(CLIENTS):
        assert found.strengths[client] == pytest.approx(max([0, *(slow[group] for group in slow if client in group)]))


@pytest.mark.parametrize(("clients", "attackers"), [(10, 2), (20, 2), (20, 4), (20, 8), (50, 5), (100, 10)])
def test_what_some_have_in_common_is_found_and_nobody_else_suspected(clients, attackers) -> None:
    for seed in range(5):
        assert suspects(*federation(100 * seed, attackers, 1.5, clients=clients)) == list(range(attackers))


def test_what_labels_explain_is_no_evidence() -> None:
    """Four clients have the same labels: unusual among so many classes, unless one knows the labels."""
    for seed in range(5):
        labels = noise(CLIENTS, 60, seed=300 * seed)
        labels[3:6] = labels[2]
        updates = noise(CLIENTS, 300, seed=300 * seed + 1) + 0.3 * labels @ noise(60, 300, seed=300 * seed + 2)
        assert suspects(updates, labels) == []
        assert suspects(updates, torch.zeros_like(labels)) == [2, 3, 4, 5]


def test_clients_with_more_data_may_have_more_in_common() -> None:
    updates, labels = federation(12, 4, 1.5)
    samples = torch.full((CLIENTS,), 50.0)
    equal = relation_scores(directions(updates, labels), MARGIN, samples)
    samples[:4] = 75
    larger = relation_scores(directions(updates, labels), MARGIN, samples)
    assert torch.allclose(larger[:4], equal[:4] / 1.5)
    samples[:4] = 1e9
    assert torch.allclose(relation_scores(directions(updates, labels), MARGIN, samples)[:4], equal[:4] / 2)


def test_two_groups_are_found_one_after_the_other() -> None:
    updates, labels = federation(11, 4, 3.0)
    updates[10:12] += 1.5 * noise(300, seed=99)
    assert suspects(updates, labels) == [0, 1, 2, 3, 10, 11]


def test_where_groups_are_usual_none_is_suspected() -> None:
    """All clients are pairs, such as two of each site: no pair is more striking than the others."""
    updates, labels = federation(13)
    updates += 2 * noise(CLIENTS // 2, 300, seed=14).repeat_interleave(2, dim=0)
    assert suspects(updates, labels) == []


@pytest.mark.parametrize("clients", [0, 1, 2, 3, 7])
def test_too_few_clients_are_not_judged(clients) -> None:
    updates, labels = federation(1, clients=clients)
    updates[:2] = updates[:1]
    assert relation_scores(directions(updates, labels), MARGIN, torch.ones(clients)).tolist() == [0.0] * clients


def test_equal_updates_and_updates_of_length_zero_are_no_evidence() -> None:
    for updates in (torch.ones(12, 30), torch.zeros(12, 30), torch.eye(12, 30)):
        scores = relation_scores(directions(updates.double(), torch.zeros(12, 10).double()), MARGIN, torch.ones(12))
        assert scores.isfinite().all()
        assert (scores <= 1).all()


def test_huge_updates_do_not_hide_the_others() -> None:
    for factor in (1e30, 1e200):  # the second one's products overflow
        updates, labels = federation(17, 3, 1.5)
        updates[19] *= factor
        labels[19] *= factor
        assert suspects(updates, labels) == [0, 1, 2]


@pytest.mark.parametrize("of_labels", [0.0, 0.5])
def test_hardly_anybody_is_accused_without_attack(of_labels) -> None:
    accused = [len(suspects(*federation(1000 + 10 * seed, of_labels=of_labels))) for seed in range(200)]
    assert sum(accused) <= 0.005 * 200 * CLIENTS


@pytest.mark.parametrize("clients", [8, 10, 20, 50])
def test_the_strength_by_chance_is_exceeded_in_one_of_a_hundred_rounds(clients) -> None:
    rounds = 300
    exceeding = sum(
        most_related(
            *(residual_cosines(rows @ rows.T) for rows in federation(5000 + 10 * seed, clients=clients))
        ).strength
        > BY_CHANCE[clients]
        for seed in range(rounds)
    )
    assert exceeding <= 10  # 3 expected; more than 10 have a probability of 0.0003


def test_strengths_by_chance_grow_between_and_beyond_the_simulated_numbers() -> None:
    assert by_chance(20) < by_chance(25) < by_chance(30) < by_chance(299) <= by_chance(300) < by_chance(1000)
    assert RIVAL > 1


def test_directions_of_a_round_are_its_inner_products() -> None:
    network = tiny_cnn()
    size = sum(parameter.numel() for parameter in network.parameters())
    round = round_of(noise(6, size, seed=3).numpy() * 0.01, network)
    found, rows = directions_of(round, seed=0), matrix(round)
    assert found.updates.numpy() == pytest.approx(rows @ rows.T)
    bias = rows[:, -network[-1].bias.numel() :]
    assert found.labels.numpy() == pytest.approx(bias @ bias.T)


def test_without_a_bias_the_sums_of_weights_show_the_labels() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    round = round_of(noise(5, 640, seed=4).numpy() * 0.01, network)
    rows = matrix(round).reshape(5, 10, 64).sum(axis=2)
    assert directions_of(round, seed=0).labels.numpy() == pytest.approx(rows @ rows.T)


def test_large_networks_are_compared_in_some_coordinates_that_differ_by_round_and_seed() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5000), nn.Linear(5000, 10))
    size = sum(parameter.numel() for parameter in network.parameters())
    assert size > 4 * COORDINATES
    round = round_of(noise(4, size, seed=5).numpy() * 0.01, network)
    first, again, other = (directions_of(round, seed).updates for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rows = matrix(round)
    share = first.diagonal().numpy() / (rows**2).sum(axis=1)
    assert share == pytest.approx(COORDINATES / size, rel=0.1)


def test_the_profile_leaves_out_poisoners_that_share_a_direction() -> None:
    """Three of ten uploads of a real network, each an own small step, and of the three a common one."""
    network = tiny_cnn()
    size = sum(parameter.numel() for parameter in network.parameters())
    rows = 0.001 * noise(10, size, seed=8)
    rows[:3] += 0.001 * noise(size, seed=9)
    flagged = {}
    for margin in (0, MARGIN):
        defense = GradCAMAE(GradCAMAE.Settings(relation_margin=margin))
        flagged[margin] = np.flatnonzero(defense.judge(round_of(rows.numpy(), network)).flagged).tolist()
    assert flagged == {0: [], MARGIN: [0, 1, 2]}


def test_an_update_of_length_0_is_nobodys_relative() -> None:
    """It would have minus the mean in common with whoever agrees least with the others."""
    generator = torch.Generator().manual_seed(3)
    updates = torch.randn(12, 300, generator=generator) + 2 * torch.randn(300, generator=generator)
    labels = torch.randn(12, 10, generator=generator)
    updates[7] = 0
    scores = relation_scores(directions(updates, labels), MARGIN, torch.ones(12))
    moving = torch.arange(12) != 7
    alone = relation_scores(directions(updates[moving], labels[moving]), MARGIN, torch.ones(11))
    assert scores[7] == 0
    assert torch.equal(scores[moving], alone)
