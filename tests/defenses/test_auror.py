import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from fedml_gradcam_ae.defenses.auror import Auror
from fedml_gradcam_ae.defenses.shared.output_layer import output_layer
from judging import check_awkward, check_restart, matrix, round_of
from tiny import tiny_cnn

HEAD = 170  # the output layer of tiny_cnn: 16 * 10 + 10, the last coordinates


def defense(**params) -> Auror:
    return Auror(Auror.Settings(**params))


def minority_of(column: np.ndarray) -> tuple[set[int], float]:
    """Who is in the smaller cluster of the best of all ways to part the clients, and how far apart the means are."""
    best, found = math.inf, (set(), 0.0)
    for part in itertools.product([False, True], repeat=len(column) - 1):
        high = np.array([False, *part])
        if high.any():
            inertia = sum(np.sum((group - group.mean()) ** 2) for group in (column[high], column[~high]))
            if inertia < best:
                groups = [set(np.flatnonzero(mask).tolist()) for mask in (high, ~high)]
                minority = set() if len(groups[0]) == len(groups[1]) else min(groups, key=len)
                best, found = inertia, (minority, abs(column[high].mean() - column[~high].mean()))
    return found


def updates(rng, clients: int, d: int, scale: float = 0.002) -> np.ndarray:
    return rng.normal(size=(clients, d)) * scale


@pytest.mark.parametrize("clients", [7, 8])
def test_a_verdict_is_two_means_of_each_coordinate_counted_over_rounds(clients) -> None:
    """All in plain loops; theta lies among the distances, so that it decides."""
    network, rng = tiny_cnn(), np.random.default_rng(clients)
    made = [
        round_of(updates(rng, clients, 218), network, number=t, samples=[1, 9] * 3 + [4] * (clients - 6))
        for t in (1, 2, 3, 4)
    ]
    judge = defense(observe_rounds=3, theta=0.003)
    counts = np.zeros(HEAD)
    for round in made:
        head = matrix(round)[:, -HEAD:]
        found = [minority_of(column) for column in head.T]
        if round.number <= 3:
            counts += [distance >= 0.003 for _, distance in found]
        shares = np.zeros(clients)
        indicative = np.flatnonzero(2 * counts > min(round.number, 3))
        for coordinate in indicative:
            for client in found[coordinate][0]:
                shares[client] += 1 / len(indicative)
        verdict = judge.judge(round)
        assert 10 < len(indicative) < HEAD - 10
        assert verdict.scores == pytest.approx(shares.tolist())
        expected = [round.number >= 3 and share > 0.5 for share in shares]
        assert verdict.flagged == verdict.excluded == expected
        kept = np.where(expected, 0, round.samples)
        assert verdict.weights == pytest.approx((kept / kept.sum()).tolist())


def test_an_attacker_on_the_output_layer_is_caught_from_the_last_observed_round_on() -> None:
    network, rng = tiny_cnn(), np.random.default_rng(0)
    judge, caught = defense(observe_rounds=3), []
    for number in range(1, 6):
        rows = updates(rng, 10, 218)
        rows[4, -HEAD:] += 0.5 * np.sign(rng.normal(size=HEAD))
        rows[8] += 0.5
        verdict = judge.judge(round_of(rows, network, number=number))
        caught.append([i for i, out in enumerate(verdict.excluded) if out])
        assert verdict.threshold == (0.5 if number >= 3 else None)
    assert caught == [[], [], [4, 8], [4, 8], [4, 8]]


def test_benign_clients_are_kept() -> None:
    network, rng, judge = tiny_cnn(), np.random.default_rng(1), defense(observe_rounds=2, theta=0.001)
    for number in range(1, 8):
        verdict = judge.judge(round_of(updates(rng, 10, 218), network, number=number))
        assert not any(verdict.excluded)
        assert max(verdict.scores) > 0.2  # there are indicative coordinates, and nobody is often on the small side


def test_only_the_output_layer_counts() -> None:
    network, rng = tiny_cnn(), np.random.default_rng(0)
    rows = updates(rng, 8, 218)
    there = defense(observe_rounds=1).judge(round_of(rows, network)).scores
    rows[3, :-HEAD] += 100
    assert defense(observe_rounds=1).judge(round_of(rows, network)).scores == there


def test_without_an_indicative_coordinate_everybody_is_kept() -> None:
    rows = updates(np.random.default_rng(0), 8, 218)
    rows[0] += 1
    verdict = defense(observe_rounds=1, theta=50.0).judge(round_of(rows, tiny_cnn()))
    assert verdict.scores == [0] * 8
    assert not any(verdict.excluded)


def test_two_groups_of_one_size_accuse_nobody() -> None:
    rows = np.repeat([[1.0], [-1.0]], 4, axis=0) * np.ones(218)
    verdict = defense(observe_rounds=1).judge(round_of(rows, tiny_cnn()))
    assert verdict.scores == [0] * 8
    rows[0] *= -1
    assert defense(observe_rounds=1).judge(round_of(rows, tiny_cnn())).scores == [0, 1, 1, 1, 0, 0, 0, 0]


def test_the_output_layer_is_the_last_module_with_trained_parameters() -> None:
    def of(network: nn.Module) -> list[str]:
        return output_layer(network, [name for name, p in network.named_parameters() if p.requires_grad])

    assert of(tiny_cnn()) == ["5.weight", "5.bias"]
    assert of(mobilenet_v3_small()) == ["classifier.3.weight", "classifier.3.bias"]
    network = nn.Sequential(tiny_cnn(), nn.Linear(10, 3, bias=False), nn.ReLU())
    assert of(network) == ["1.weight"]
    network[1].requires_grad_(False)
    assert of(network) == ["0.5.weight", "0.5.bias"]
    network[0][5].weight.requires_grad_(False)
    assert of(network) == ["0.5.bias"]
    assert of(nn.Linear(2, 2)) == ["weight", "bias"]


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(observe_rounds=1), make_round)
    check_awkward(lambda: defense(observe_rounds=5, tau=0.0), make_round)


def test_a_restart_changes_nothing() -> None:
    network, rng, made = tiny_cnn(), np.random.default_rng(0), []
    for number in range(1, 8):
        rows = updates(rng, 9, 218)
        rows[4] += 0.01 * (number < 4) + 0.004
        made.append(round_of(rows, network, number=number))
    check_restart(lambda: defense(observe_rounds=4, theta=0.004), made, after=3)


def test_batch_norms_statistics_do_not_count(make_round) -> None:
    round = make_round()
    changed = [dict(upload) for upload in round.uploads]
    for i, upload in enumerate(changed):
        upload["1.running_mean"] = torch.full((4,), 100.0 * i)
    verdict = defense(observe_rounds=1).judge(replace(round, uploads=changed))
    assert verdict.scores == defense(observe_rounds=1).judge(round).scores
