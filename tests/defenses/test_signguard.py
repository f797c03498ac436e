from dataclasses import replace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.defenses.signguard import SignGuard, draw_columns, largest_cluster, sign_shares
from fedml_gradcam_ae.networks.images import seeded_generator
from judging import check_awkward, matrix, round_of, vector
from tiny import tiny_cnn


def defense(**params) -> SignGuard:
    return SignGuard(SignGuard.Settings(**{"coordinates": 1.0, **params}))


def benign(clients: int = 12, seed: int = 0) -> np.ndarray:
    """Updates with a drift, so that their signs have a balance of their own."""
    return 0.01 * (np.random.default_rng(seed).normal(size=(clients, 218)) + 0.5)


def left_out(rows: np.ndarray, **params) -> list[int]:
    return [i for i, out in enumerate(defense(**params).judge(round_of(rows, tiny_cnn())).excluded) if out]


def flat_mean_shift(points: np.ndarray, bandwidth: float) -> list[np.ndarray]:
    """Where a flat kernel of this bandwidth takes every point."""
    ends = []
    for point in points:
        for _ in range(500):
            near = points[np.linalg.norm(points - point, axis=1) <= bandwidth]
            point = near.mean(0)
        ends.append(point)
    return ends


def test_a_verdict_is_both_filters_and_the_mean_of_the_clipped(make_round) -> None:
    """Mean shift written out: everybody whose point goes to the same place as most is kept."""
    rows = benign(11, seed=3)
    rows[2] *= 5  # too long
    rows[5] *= 0.05  # too short
    rows[7] = -rows[7]  # other signs
    rows[9] *= 1.4
    round = round_of(rows, tiny_cnn(), samples=[float(i + 1) for i in range(11)])
    uploads = matrix(round)
    norms = np.linalg.norm(uploads, axis=1)
    usual = (norms >= 0.1 * np.median(norms)) & (norms <= 3 * np.median(norms))
    signs = np.stack([(uploads > 0).mean(1), (uploads == 0).mean(1), (uploads < 0).mean(1)], axis=1)
    distances = np.sort(np.linalg.norm(signs[:, None] - signs, axis=2), axis=1)
    bandwidth = distances[:, int(11 * 0.5) - 1].mean()
    ends = np.array(flat_mean_shift(signs, bandwidth))
    most = max(ends, key=lambda end: (np.linalg.norm(ends - end, axis=1) < bandwidth).sum())
    center = most
    together = np.linalg.norm(signs - center, axis=1) <= bandwidth
    kept = usual & together
    assert 0 < kept.sum() < usual.sum() < 11
    clipped = uploads * np.minimum(1, np.median(norms) / norms)[:, None]

    verdict = defense().judge(round)
    assert verdict.excluded == verdict.flagged == (~kept).tolist()
    np.testing.assert_allclose(vector(round, verdict.model), clipped[kept].mean(0), rtol=1e-4, atol=1e-7)
    assert set(verdict.reasons) == {2, 5}
    assert "longer" in verdict.reasons[2]
    assert "shorter" in verdict.reasons[5]
    assert verdict.scores[2] == verdict.scores[5] == np.inf
    assert np.argmax([score if np.isfinite(score) else -1 for score in verdict.scores]) == 7


@pytest.mark.parametrize("attack", ["flip", "long", "noise", "short"])
def test_crude_attackers_are_left_out_and_half_of_the_others_kept(attack) -> None:
    rows = benign(20)
    if attack == "flip":
        rows[:3] = -rows[:3]
    elif attack == "long":
        rows[:3] *= 1e30
    elif attack == "short":
        rows[:3] *= 1e-6
    else:
        rows[:3] += np.random.default_rng(1).uniform(1, 2, size=(3, 218))
    out = left_out(rows)
    assert set(out) >= {0, 1, 2}
    assert len(out) <= 3 + 17 // 2  # mean shift leaves out what is further from the center than its bandwidth


def test_identical_attackers_that_are_no_majority_are_left_out() -> None:
    rows = benign(20)
    rows[:6] = -rows[0]
    assert set(left_out(rows)) >= set(range(6))


def test_one_exact_zero_makes_nobody_suspicious() -> None:
    """Divided by the largest share of zeros, as in the published code, it would be a whole unit."""
    rows = benign(12)
    before = left_out(rows)
    network = tiny_cnn()
    round = round_of(rows, network)
    quiet = {name: tensor.clone() for name, tensor in round.uploads[4].items()}
    quiet["5.bias"][0] = round.global_model["5.bias"][0]
    changed = replace(round, uploads=[*round.uploads[:4], quiet, *round.uploads[5:]])
    assert matrix(changed)[4].tolist().count(0) == 1
    out = [i for i, excluded in enumerate(defense().judge(changed).excluded) if excluded]
    assert (4 in out) == (4 in before)


def test_batch_norms_statistics_are_averaged_by_samples_over_the_kept() -> None:
    rows = benign(8)
    rows[3] *= 1e6
    round = round_of(rows, tiny_cnn(), samples=[float(i + 1) for i in range(8)])
    uploads = [{**upload, "1.running_mean": torch.full((4,), float(i))} for i, upload in enumerate(round.uploads)]
    verdict = defense().judge(replace(round, uploads=uploads))
    kept = ~np.array(verdict.excluded)
    expected = np.average(np.arange(8)[kept], weights=np.arange(1, 9)[kept])
    assert verdict.model["1.running_mean"].tolist() == pytest.approx([expected] * 4)


def test_the_shares_of_signs() -> None:
    values = torch.tensor([[1.0, -2.0, 0.0, 3.0, -1.0, 1.0], [-1.0, -1.0, -0.0, -9.0, 0.0, -1.0]])
    assert sign_shares(values).tolist() == [[3 / 6, 1 / 6, 2 / 6], [0.0, 2 / 6, 4 / 6]]


def test_columns_are_a_share_ascending_and_drawn_anew_by_the_generator() -> None:
    first = draw_columns(1000, 0.1, seeded_generator(0, 1), torch.device("cpu"))
    second = draw_columns(1000, 0.1, seeded_generator(0, 2), torch.device("cpu"))
    assert len(first) == len(set(first.tolist())) == 100
    assert first.tolist() == sorted(first.tolist())
    assert not torch.equal(first, second)
    assert len(draw_columns(5, 0.01, seeded_generator(0), torch.device("cpu"))) == 1


def test_a_share_of_the_coordinates_is_judged_like_all_of_them_where_all_are_alike() -> None:
    rows = benign(20)
    rows[:4] = -np.abs(rows[:4])
    assert set(left_out(rows, coordinates=0.3)) >= {0, 1, 2, 3}


def test_where_half_of_the_points_are_one_all_are_together() -> None:
    points = torch.tensor([[0.5, 0.0, 0.5]] * 3 + [[0.1, 0.0, 0.9]] * 3)
    assert largest_cluster(points) == ([0.0] * 6, [True] * 6)


def test_when_no_length_is_usual_the_global_model_stays() -> None:
    verdict = defense(lowest=1.5, highest=2.0).judge(round_of(benign(1), tiny_cnn()))
    assert verdict.weights == [0]
    assert verdict.excluded == [True]


def test_awkward_rounds(make_round) -> None:
    check_awkward(defense, make_round)
    check_awkward(lambda: defense(coordinates=1e-9, lowest=0.99, highest=1.01), make_round)


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lowest must not exceed highest, found lowest 4.0, highest 3.0"):
        defense(lowest=4.0)
