import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from fedml_gradcam_ae.defenses.foolsgold import FoolsGold, influence, pardoned
from judging import check_awkward, check_restart, matrix, round_of
from tiny import tiny_cnn


def defense(**params) -> FoolsGold:
    return FoolsGold(FoolsGold.Settings(**params))


def by_the_paper(sums: np.ndarray, confidence: float = 1.0) -> tuple[list[float], list[float]]:
    """Algorithm 1, client by client: each one's weight, and its largest cosine after pardoning."""
    clients = len(sums)
    cosines = cosine_similarity(sums)
    largest = [max([0.0] + [cosines[i, j] for j in range(clients) if j != i]) for i in range(clients)]
    worst = []
    for i in range(clients):
        found = [0.0]
        for j in range(clients):
            if j != i:
                found.append(cosines[i, j] * (largest[i] / largest[j] if largest[j] > largest[i] else 1))
        worst.append(max(found))
    alphas = [1 - value for value in worst]
    alphas = [alpha / max(alphas) for alpha in alphas]
    weights = []
    for alpha in alphas:
        if alpha == 1:
            alpha = 0.99
        value = confidence * (math.log(alpha / (1 - alpha)) + 0.5) if alpha > 0 else 0
        weights.append(min(1, max(0, value)))
    return weights, worst


def sybils(rng, clients: int = 8, twins=(1, 4), d: int = 218, alike: float = 0.0) -> np.ndarray:
    """Clients that have a direction of their own, the later ones more alike, and twins that share one."""
    common, own = np.random.default_rng(99).normal(size=d), rng.normal(size=(clients, d))
    rows = alike * np.linspace(0, 1, clients)[:, None] * common + own
    for twin in twins:
        rows[twin] = own[twins[0]] + 0.02 * rng.normal(size=d)
    return 0.01 * rows


@pytest.mark.parametrize("clients", [5, 8])
@pytest.mark.parametrize("confidence", [1.0, 0.4])
@pytest.mark.parametrize("features", ["all", "output_layer"])
def test_a_verdict_is_the_papers_algorithm_on_the_sums_over_rounds(clients, confidence, features) -> None:
    network, rng, sums = tiny_cnn(), np.random.default_rng(clients), 0
    judge = defense(confidence=confidence, features=features)
    samples = [5.0 + 10 * i for i in range(clients)]
    in_between = set()
    for number in range(1, 5):
        round = round_of(sybils(rng, clients, alike=0.7), network, number=number, samples=samples)
        sums = sums + matrix(round)[:, -170 if features == "output_layer" else 0 :]
        weights, worst = by_the_paper(sums, confidence)
        shares = np.array(weights) * samples
        verdict = judge.judge(round)
        assert verdict.scores == pytest.approx(worst, rel=1e-4)
        assert verdict.weights == pytest.approx((shares / shares.sum()).tolist(), rel=1e-3)
        assert verdict.excluded == verdict.flagged == [weight == 0 for weight in weights]
        in_between |= {weight for weight in weights if 0.01 < weight < 0.99}
    assert in_between


def test_twins_are_left_out_and_the_others_kept() -> None:
    verdict = defense().judge(round_of(sybils(np.random.default_rng(0)), tiny_cnn()))
    assert [i for i, out in enumerate(verdict.excluded) if out] == [1, 4]
    assert verdict.weights[0] == pytest.approx(1 / 6)


def test_sybils_that_alternate_are_seen_through_their_sums() -> None:
    """Round by round two sybils are opposite; over two rounds they are the same."""
    network, rng, judge = tiny_cnn(), np.random.default_rng(2), defense()
    goal, jitter = 0.01 * rng.normal(size=218), 0.02 * rng.normal(size=218)
    for number in range(1, 5):
        rows = 0.01 * rng.normal(size=(6, 218))
        rows[2], rows[5] = goal + (-1) ** number * jitter, goal - (-1) ** number * jitter
        verdict = judge.judge(round_of(rows, network, number=number))
        assert verdict.excluded[2] == verdict.excluded[5] == (number % 2 == 0)


def test_the_sums_belong_to_clients_not_to_positions() -> None:
    network, rng = tiny_cnn(), np.random.default_rng(3)
    rows, more = sybils(rng), sybils(rng, twins=(0, 1))
    judge, shuffled = defense(), defense()
    for defended in (judge, shuffled):
        defended.judge(round_of(rows, network))
    order = [7, 2, 4, 1, 0, 3, 6, 5]
    first = judge.judge(round_of(more, network, number=2)).scores
    second = shuffled.judge(round_of(more[order], network, number=2, client_ids=order)).scores
    assert [first[client] for client in order] == pytest.approx(second)
    # Who was absent keeps its sum: two clients that uploaded alike before are twins now.
    alone = judge.judge(round_of(0.0001 * more[:2], network, number=3, client_ids=[1, 4]))
    assert alone.scores[0] > 0.25


def test_pardoning_spares_who_resembles_a_sybil_only() -> None:
    cosines = torch.tensor([[1.0, 0.9, 0.6], [0.9, 1.0, 0.0], [0.6, 0.0, 1.0]], dtype=torch.float64)
    expected = [[0, 0.9, 0.6], [0.9, 0, 0], [0.6 * 0.6 / 0.9, 0, 0]]
    torch.testing.assert_close(pardoned(cosines), torch.tensor(expected, dtype=torch.float64))


def test_opposite_clients_are_no_sybils() -> None:
    cosines = torch.tensor([[1.0, -0.8], [-0.8, 1.0]], dtype=torch.float64)
    assert influence(pardoned(cosines)).tolist() == [1, 1]


def test_where_all_are_alike_all_are_kept(make_round) -> None:
    verdict = defense().judge(make_round(uploads=[make_round().uploads[0]] * 6))
    assert not any(verdict.excluded)
    assert verdict.scores == pytest.approx([1] * 6)


def test_nobody_alike_is_fedavg() -> None:
    rows = 0.01 * np.eye(6, 218)
    verdict = defense().judge(round_of(rows, tiny_cnn(), samples=[1, 2, 3, 4, 5, 6]))
    assert verdict.weights == pytest.approx([i / 21 for i in range(1, 7)])


def test_memory_is_one_float32_vector_per_client() -> None:
    rows = sybils(np.random.default_rng(0))
    for features, size in (("all", 218), ("output_layer", 170)):
        judge = defense(features=features)
        judge.judge(round_of(rows, tiny_cnn()))
        sums = judge.state()["sums"]
        assert list(sums) == list(range(8))
        assert {(tuple(tensor.shape), tensor.dtype) for tensor in sums.values()} == {((size,), torch.float32)}


def test_awkward_rounds(make_round) -> None:
    check_awkward(defense, make_round)
    check_awkward(lambda: defense(features="output_layer", confidence=0.1), make_round)


def test_a_restart_changes_nothing() -> None:
    network, rng = tiny_cnn(), np.random.default_rng(0)
    present = [list(range(8)), [0, 1, 2, 3, 4, 5, 6, 7], [3, 1, 4, 0, 8, 2, 9, 10], list(range(8))]
    rounds = [round_of(sybils(rng), network, number=n, client_ids=ids) for n, ids in enumerate(present, 1)]
    check_restart(defense, rounds, after=2)
