"""AlignIns against numpy, and what its radius does."""

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.alignins import AlignIns, sign_alignment
from fedml_gradcam_ae.maths.median_z_scores import median_z_scores
from judging import check_awkward, matrix, round_of, vector
from tiny import tiny_cnn


def defense(**params) -> AlignIns:
    return AlignIns(AlignIns.Settings(**params))


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


def center_of(round) -> np.ndarray:
    names = [name for name, _ in round.network.named_parameters()]
    return np.concatenate([round.global_model[name].double().numpy().ravel() for name in names])


def by_the_paper(round, largest=0.3, sign_radius=1.0, angle_radius=1.0):
    """The clients that are kept and the aggregate, client by client."""
    rows, center = matrix(round), center_of(round)
    majority = np.sign(np.sign(rows).sum(0))
    shares, angles = [], []
    for row in rows:
        places = np.argsort(-np.abs(row))[: int(largest * len(row))]
        shares.append(np.mean(np.sign(row[places]) == majority[places]))
        angles.append(row @ center / np.linalg.norm(row) / np.linalg.norm(center))
    far = np.maximum(
        np.abs(shares - np.median(shares)) / np.std(shares) / sign_radius,
        np.abs(angles - np.median(angles)) / np.std(angles) / angle_radius,
    )
    kept = rows[far < 1]
    norms = np.linalg.norm(kept, axis=1)
    return far, (kept * np.minimum(1, np.median(norms) / norms)[:, None]).mean(0)


@pytest.mark.parametrize("clients", [3, 6, 11, 20])
@pytest.mark.parametrize("params", [{"sign_radius": 2.0}, {"largest": 0.8, "sign_radius": 1.5, "angle_radius": 1.7}])
def test_a_verdict_is_two_filters_then_clipping_then_the_mean(clients, params) -> None:
    round = round_of(updates(clients, clients), tiny_cnn(), samples=[1.0 + i for i in range(clients)])
    far, mean = by_the_paper(round, **params)
    assert 0 < (far < 1).sum() < max(clients, 4)
    verdict = defense(**params).judge(round)
    assert verdict.scores == pytest.approx(far.tolist(), rel=1e-6)
    assert verdict.excluded == (far >= 1).tolist()
    np.testing.assert_allclose(vector(round, verdict.model), mean, rtol=1e-3, atol=1e-6)


def test_flipped_signs_are_left_out_however_long_the_update() -> None:
    rows = updates(20)
    for size in (1.0, 1e20):
        changed = rows.copy()
        changed[[2, 5, 11]] *= -size
        verdict = defense().judge(round_of(changed, tiny_cnn()))
        assert all(verdict.excluded[i] for i in (2, 5, 11))
        assert not all(verdict.excluded)


def test_the_clipping_is_to_the_median_of_the_kept() -> None:
    direction = np.random.default_rng(0).normal(size=218)
    lengths = np.array([1.0, 2.0, 3.0, 4.0, 50.0])[:, None] * direction / np.linalg.norm(direction)
    round = round_of(lengths, tiny_cnn().double())
    verdict = defense().judge(round)
    assert not any(verdict.excluded)  # all signs and angles are the same
    np.testing.assert_allclose(vector(round, verdict.model), 12 / 5 / 3 * lengths[2], rtol=1e-9, atol=1e-12)


def test_coordinates_that_are_equally_large_count_in_part() -> None:
    """By hand: the largest two are one of size 3, which agrees, and one of three of size 1, two of which agree."""
    rows = torch.tensor([[3.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = sign_alignment(Updates([{"w": row} for row in rows], {"w": torch.zeros(4)}, ["w"]), share=0.5)
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1, 1])


def test_a_tie_of_signs_is_nobodys_majority() -> None:
    rows = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    found = sign_alignment(Updates([{"w": row} for row in rows], {"w": torch.zeros(2)}, ["w"]), share=1.0)
    assert found.tolist() == [0.5, 0.5]


def test_the_score_of_the_median() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3))
    expected = np.abs(values - np.median(values, 0)) / values.std(0)
    np.testing.assert_allclose(median_z_scores(torch.tensor(values)).numpy(), expected)
    assert median_z_scores(torch.tensor([1.0, 2.0])).tolist() == [0, 0]
    assert median_z_scores(torch.tensor([1.0, 1.0, 1.0 + 1e-15], dtype=torch.float64)).tolist() == [0, 0, 0]


def test_one_and_two_clients_are_kept(make_round) -> None:
    for clients in (1, 2):
        assert defense().judge(make_round(clients)).excluded == [False] * clients


def test_awkward_rounds(make_round) -> None:
    check_awkward(defense, make_round)
