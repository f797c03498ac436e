"""Bulyan against its definition written out in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.defenses.bulyan import Bulyan, repeated_krum
from fedml_gradcam_ae.maths.order_statistics import mean_nearest_to_median
from judging import check_awkward
from vectors import aggregate, matrices, round_of, rows_of


def bulyan(**params) -> Bulyan:
    return Bulyan(Bulyan.Settings(**params))


def krum_of(rows: np.ndarray, malicious: int) -> int:
    squared = ((rows[:, None] - rows) ** 2).sum(axis=2)
    neighbors = max(1, len(rows) - malicious - 2)
    return int(np.argmin([np.sort(np.delete(squared[i], i))[:neighbors].sum() for i in range(len(rows))]))


def chosen_by_krum(rows: np.ndarray, malicious: int) -> list[int]:
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * malicious:
        chosen.append(left.pop(krum_of(rows[left], malicious)))
    return chosen


@pytest.mark.parametrize("malicious", [0, 1, 2])
@pytest.mark.parametrize("clients", [11, 12])
def test_the_model_is_the_papers(malicious, clients) -> None:
    generator = np.random.default_rng(clients + malicious)
    rows = generator.normal(size=(clients, 31))
    rows[:malicious] += 9 * np.array([[1], [-1]])[:malicious]
    round = round_of(rows, samples=range(1, clients + 1))
    exact = rows_of(round)
    chosen = chosen_by_krum(exact, malicious)
    kept = exact[chosen]
    nearest = np.argsort(abs(kept - np.median(kept, axis=0)), axis=0)[: clients - 4 * malicious]
    expected = np.take_along_axis(kept, nearest, axis=0).mean(axis=0)
    verdict = bulyan(malicious=malicious).judge(round)
    assert np.allclose(aggregate(round, verdict), expected)
    assert repeated_krum(round.updates.squared_distances, malicious) == chosen
    assert verdict.excluded == [client not in chosen for client in range(clients)]
    assert sum(verdict.flagged) == malicious
    assert all(out for flag, out in zip(verdict.flagged, verdict.excluded, strict=True) if flag)
    assert verdict.flagged[:malicious] == [True] * malicious


@settings(max_examples=80, deadline=None)
@given(rows=matrices(least=1), data=st.data())
def test_no_value_left_out_is_nearer_to_the_median_than_one_that_counts(rows, data) -> None:
    """With ties several means are right: the distances that are averaged are the least ones."""
    kept = data.draw(st.integers(1, len(rows)))
    found = mean_nearest_to_median(torch.from_numpy(rows), kept).double().numpy()
    for column, mean in zip(rows.astype(np.float64).T, found, strict=True):
        ordered, median = np.sort(column), np.median(column)
        windows = [ordered[start : start + kept] for start in range(len(column) - kept + 1)]
        least = np.sort(abs(column - median))[:kept]
        right = [
            w.mean() for w in windows if np.allclose(np.sort(abs(w - median)), least, atol=1e-6 * abs(column).max())
        ]
        assert np.isclose(right, mean, rtol=1e-5, atol=1e-5 * max(1e-6, abs(column).max())).any()


def test_a_value_that_lies_twice_at_the_edge_does_not_push_out_a_nearer_one() -> None:
    values = torch.tensor([[0.0], [0.0], [3.0], [5.0], [9.0]])  # distances to 3: 3, 3, 0, 2, 6
    assert mean_nearest_to_median(values, 3).item() == pytest.approx((0 + 3 + 5) / 3)


def test_fewer_uploads_than_4f_plus_3_are_too_few() -> None:
    rows = torch.randn(10, 4)
    with pytest.raises(TooFewUploads, match="11 usable uploads are needed, found 10"):
        bulyan(malicious=2).judge(round_of(rows))
    bulyan(malicious=2).judge(round_of(rows, rejected={77: "NaN"}))
    with pytest.raises(ValueError, match=r"malicious: 2 of 10 clients a round are too many.*needs 11 clients"):
        Bulyan.Settings(malicious=2).check_clients(10)


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: bulyan(malicious=0.0), make_round)
