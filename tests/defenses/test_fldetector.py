"""Against the paper's equations with a dense BFGS matrix, client by client, in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedml_gradcam_ae.defenses.fldetector import FLDetector
from judging import check_awkward, check_restart, moved, round_of, vector
from tiny import state_of


def defense(**params) -> FLDetector:
    return FLDetector(FLDetector.Settings(**{"window": 3, **params}))


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()  # 15 parameters


class Clients:
    """Each with a quadratic loss of its own: it uploads minus a share of its gradient, with noise."""

    def __init__(self, number: int, d: int = 15, noise: float = 0.01, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        root = self.rng.normal(size=(d, d))
        self.hessian = 0.2 * root @ root.T / d + 0.05 * np.eye(d)
        self.optima = self.rng.normal(size=(number, d))
        self.noise = noise

    def upload(self, client: int, point: np.ndarray) -> np.ndarray:
        return -self.hessian @ (point - self.optima[client]) + self.noise * self.rng.normal(size=len(point))


def flat(model) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in model.values()])


def rounds(present, attackers=(), network=None, seed: int = 0, noise: float = 0.01):
    """A federation under FedAvg: which clients take part in each round; attackers upload noise."""
    network = network or small_network()
    clients, center = Clients(30, noise=noise, seed=seed), state_of(network)
    made = []
    for number, who in enumerate(present, 1):
        point = flat(center)
        rows = [
            2 * clients.rng.normal(size=len(point)) if client in attackers else clients.upload(client, point)
            for client in who
        ]
        samples = [10.0 + client for client in who]
        made.append(round_of(np.array(rows), network, center, number, who, samples))
        mean = np.average(rows, axis=0, weights=samples)
        update = round_of(mean[None], network, center).uploads[0]
        center = update
    return made


def dense_bfgs(steps, changes) -> np.ndarray:
    matrix = steps[-1] @ changes[-1] / (steps[-1] @ steps[-1]) * np.eye(len(steps[0]))
    for s, y in zip(steps, changes, strict=True):
        matrix = matrix - matrix @ np.outer(s, s) @ matrix / (s @ matrix @ s) + np.outer(y, y) / (y @ s)
    return matrix


def expected_scores(made, window: int) -> list[dict]:
    """Every round's scores, by client: those of clients that can be predicted."""
    points, means, uploads = [], [], []
    distances: dict[int, list[float]] = {}
    found = []
    for t, round in enumerate(made):
        points.append(flat(round.global_model))
        own = {c: vector(round, u) for c, u in zip(round.client_ids, round.uploads, strict=True)}
        errors = {}
        if t >= 2:
            first = max(1, t - window)
            steps = [points[j] - points[j - 1] for j in range(first, t)]
            changes = [means[j] - means[j - 1] for j in range(first, t)]
            hessian = dense_bfgs(steps, changes)
            for client, update in own.items():
                past = [j for j in range(t) if client in uploads[j]]
                if past and t - past[-1] <= window + 1:
                    predicted = uploads[past[-1]][client] + hessian @ (points[t] - points[past[-1]])
                    errors[client] = np.linalg.norm(predicted - update)
        for client, error in errors.items():
            distances.setdefault(client, []).append(error / np.mean(list(errors.values())))
        found.append({c: np.mean(distances[c][-window:]) for c in own if c in distances})
        uploads.append(own)
        means.append(np.average(list(own.values()), axis=0, weights=round.samples))
    return found


FULL = [list(range(6))] * 9
PARTIAL = [
    [0, 1, 2, 3],
    [1, 2, 3, 4],
    [0, 2, 4, 5],  # client 0 paused for one round
    [1, 3, 4, 5],
    [0, 1, 2, 3, 4, 5],
    [2, 3, 4, 5],
    [0, 1, 2, 3],
    [0, 1, 2],
    [0, 1, 2],
    [0, 1, 2],
    [1, 2, 3, 4, 5],  # 4 and 5 paused for longer than the window
    [2, 4, 5, 0],
]


@pytest.mark.parametrize("present", [FULL, PARTIAL], ids=["full", "partial"])
def test_scores_are_the_papers_with_the_bfgs_matrix_written_out(present) -> None:
    made = rounds(present)
    # The detection stays off, so that the mean of the updates is FedAvg's.
    judge, expected = defense(start_round=1000), expected_scores(made, window=3)
    compared = 0
    for round, scores in zip(made, expected, strict=True):
        verdict = judge.judge(round)
        found = dict(zip(round.client_ids, verdict.scores, strict=True))
        assert {client: found[client] for client in scores} == pytest.approx(scores, rel=2e-3)
        usual = np.mean(list(scores.values())) if scores else 1
        assert {client: found[client] for client in found.keys() - scores.keys()} == pytest.approx(
            dict.fromkeys(found.keys() - scores.keys(), usual), rel=2e-3
        )
        compared += len(scores)
    assert compared > 25
    assert len({f"{score:.2f}" for score in found.values()}) > 1


def test_on_one_quadratic_without_noise_the_prediction_is_all_but_exact() -> None:
    made = rounds([list(range(5))] * 16, noise=0.0)
    judge = defense(window=10, start_round=1000)
    for round in made[:-1]:
        judge.judge(round)
    errors = judge._history.prediction_errors(made[-1])
    update = np.linalg.norm(vector(made[-1], made[-1].uploads[0]))
    change = np.linalg.norm(vector(made[-1], made[-1].uploads[0]) - vector(made[-2], made[-2].uploads[0]))
    assert change > 1e-4 * update
    assert max(errors.values()) < 0.1 * change


def test_clients_that_upload_anew_each_round_are_detected_once_there_is_history() -> None:
    made = rounds([list(range(12))] * 12, attackers={3, 7})
    judge = defense()
    answers = [judge.judge(round) for round in made]
    assert all(not any(answer.excluded) for answer in answers[:4])  # 1 + 1 + window rounds
    for answer in answers[4:]:
        assert [i for i, out in enumerate(answer.excluded) if out] == [3, 7]
        assert answer.flagged == answer.excluded == [score > answer.threshold for score in answer.scores]
        assert answer.weights[3] == 0
        assert sum(answer.weights) == pytest.approx(1)
    assert answers[0].threshold is None


def test_detection_waits_for_the_start_round() -> None:
    made = rounds([list(range(12))] * 9, attackers={3, 7})
    judge = defense(start_round=8)
    assert [sum(judge.judge(round).excluded) for round in made] == [0] * 7 + [2, 2]


def test_clients_that_are_consistent_are_kept() -> None:
    made = rounds([list(range(12))] * 14)
    judge = defense(window=5)
    out = sum(sum(judge.judge(round).excluded) for round in made)
    assert out <= 12  # of 168: the gap statistic has false alarms


def test_detection_for_good_and_a_way_back() -> None:
    made = rounds([list(range(12))] * 9, attackers={3})
    honest = rounds([list(range(12))] * 16)
    for permanent in (False, True):
        judge = defense(permanent=permanent)
        for round in made:
            judge.judge(round)
        for round in honest[9:15]:
            answer = judge.judge(round)
        assert answer.excluded[3] == permanent
    assert answer.scores[3] == math.inf
    assert answer.reasons == {3: "detected in round 5, for good"}
    judge.release(3)
    assert not judge.judge(honest[15]).excluded[3]


def test_a_client_seen_for_the_first_time_is_kept_with_the_score_of_the_kept() -> None:
    made = rounds([list(range(12))] * 8 + [list(range(13))], attackers={3, 7})
    judge = defense()
    for round in made:
        answer = judge.judge(round)
    kept = [score for score, out in zip(answer.scores[:12], answer.excluded[:12], strict=True) if not out]
    assert sum(answer.excluded) == 2
    assert not answer.excluded[12]
    assert answer.scores[12] == pytest.approx(np.mean(kept))


def test_a_federation_defended_by_it_goes_on_learning() -> None:
    """The mean it remembers is that of the clients it kept, so that it goes on predicting."""
    network = small_network()
    clients, center, judge, lengths = Clients(12), state_of(network), defense(), []
    for number in range(1, 25):
        point = flat(center)
        rows = np.array([clients.upload(c, point) for c in range(10)] + [5 * clients.rng.normal(size=15)] * 2)
        round = round_of(rows, network, center, number)
        answer = judge.judge(round)
        center = moved(center, answer, round)
        lengths.append(np.linalg.norm(rows[:10].mean(0)))
    assert answer.excluded == [False] * 10 + [True] * 2
    assert lengths[-1] < 0.1 * max(lengths)  # of the honest clients' mean step toward their optimum


def test_memory_is_one_update_per_client_of_the_last_rounds_and_two_n_vectors() -> None:
    made = rounds([[0, 1, 2], [0, 1, 2], *[[0, 1]] * 8])
    judge = defense()
    for round in made:
        judge.judge(round)
    history = judge.state()["history"]
    assert set(history["last"]) == {0, 1}
    assert len(history["steps"]) == len(history["changes"]) == 3
    assert all(tensor.dtype == torch.float32 and tensor.shape == (15,) for tensor in history["last"].values())


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(window=1), make_round)
    check_awkward(lambda: defense(window=2, permanent=True), make_round)


def test_a_restart_changes_nothing() -> None:
    made = rounds([*FULL[:5], *PARTIAL[4:]], attackers={3})
    check_restart(lambda: defense(permanent=True), made, after=6)


def test_when_everybody_is_out_for_good_the_global_model_stays() -> None:
    made = rounds([list(range(12))] * 9 + [[3, 7]], attackers={3, 7})
    judge = defense(permanent=True)
    for round in made:
        answer = judge.judge(round)
    assert answer.weights == [0, 0]
    assert answer.scores == [math.inf] * 2
