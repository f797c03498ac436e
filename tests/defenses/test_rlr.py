"""The robust learning rate against its formula in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from fedml_gradcam_ae.defenses.rlr import RobustLearningRate
from vectors import aggregate, matrices, round_of, rows_of, samples


def rlr(**params) -> RobustLearningRate:
    return RobustLearningRate(RobustLearningRate.Settings(**params))


@settings(max_examples=60, deadline=None)
@given(rows=matrices(least=1), counts=samples)
def test_where_the_signs_disagree_the_mean_is_reversed(rows, counts) -> None:
    counts = np.array(counts[: len(rows)])
    round = round_of(rows, counts)
    exact = rows_of(round)
    for threshold in (0.0, 0.4, 1.0):
        forward = abs(np.sign(exact).sum(axis=0)) >= threshold * len(rows) - 1e-6
        expected = np.where(forward, 1, -1) * (counts / counts.sum() @ exact)
        found = aggregate(round, rlr(threshold=threshold).judge(round))
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-6 * max(1.0, abs(exact).max()))


def test_by_hand() -> None:
    rows = torch.tensor([[1.0, 1.0, 0.0], [2.0, -1.0, 0.0], [3.0, 3.0, 3.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    round = round_of(rows.double())  # the signs sum to 5, 3 and 1; the mean is 2, 1 and 0.6
    assert aggregate(round, rlr(threshold=0.6).judge(round)) == pytest.approx([2, 1, -0.6])
    assert aggregate(round, rlr(threshold=0.61).judge(round)) == pytest.approx([2, -1, -0.6])
    assert aggregate(round, rlr(threshold=0.2).judge(round)) == pytest.approx([2, 1, 0.6])


def test_a_backdoor_of_a_few_clients_is_unlearned() -> None:
    rows = np.zeros((10, 4))
    rows[:, :2] = 0.1  # what all learn
    rows[:2, 2:] = 50.0  # what two alone learn
    round = round_of(rows)
    step = aggregate(round, rlr().judge(round))
    assert step[:2] == pytest.approx([0.1, 0.1])
    assert (step[2:] < 0).all()


def test_statistics_are_averaged_by_samples() -> None:
    model = rlr().judge(round_of(torch.randn(4, 6), samples=[1, 2, 3, 4])).model
    assert model["statistic"].tolist() == pytest.approx([(0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10] * 2)
    assert model["batches"].item() == 20


def test_a_threshold_above_all_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        rlr(threshold=4.0)
