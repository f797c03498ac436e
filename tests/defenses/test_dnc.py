"""DnC against numpy's singular value decomposition."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.defenses.dnc import DnC, outlier_scores
from vectors import aggregate, matrices, round_of, rows_of


@settings(max_examples=50, deadline=None)
@given(rows=matrices(least=2))
def test_scores_are_squared_projections_on_the_top_singular_vector(rows) -> None:
    exact = rows.astype(np.float64)
    centered = exact - exact.mean(axis=0)
    values, directions = np.linalg.svd(centered)[1:]
    # With two directions of the same variance either is right.
    assume(len(values) == 1 or values[0] - values[1] > 1e-3 * values[0])
    expected = (centered @ directions[0]) ** 2
    assert np.allclose(
        outlier_scores(torch.from_numpy(exact)).numpy(), expected, atol=1e-8 * max(1e-12, expected.max())
    )


def test_all_coordinates_once_drops_the_furthest_clients() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, 40))
    rows[[2, 7]] += 5
    round = round_of(rows)
    verdict = DnC(DnC.Settings(malicious=2, repetitions=1, filter_fraction=1.0)).judge(round)
    centered = rows_of(round) - rows_of(round).mean(axis=0)
    scores = (centered @ np.linalg.svd(centered)[2][0]) ** 2
    assert {i for i, out in enumerate(verdict.excluded) if out} == set(np.argsort(scores)[-2:]) == {2, 7}
    kept = [i for i in range(10) if i not in (2, 7)]
    assert np.allclose(aggregate(round, verdict), rows_of(round)[kept].mean(axis=0))


@pytest.mark.parametrize(("malicious", "dropped"), [(0, 0), (1, 1), (2, 3), (3, 4)])
def test_one_and_a_half_times_as_many_are_dropped_each_time(malicious, dropped) -> None:
    rows = torch.randn(12, 400, generator=torch.Generator().manual_seed(1))
    one = DnC(DnC.Settings(malicious=malicious, repetitions=1)).judge(round_of(rows))
    assert sum(one.excluded) == dropped
    many = DnC(DnC.Settings(malicious=malicious, repetitions=5, coordinates=5)).judge(round_of(rows))
    assert dropped <= sum(many.excluded) <= 5 * dropped


def test_coordinates_are_drawn_anew_each_round_from_the_seed() -> None:
    rows = torch.randn(12, 4000, generator=torch.Generator().manual_seed(1))

    def out(number, seed=0):
        return DnC(DnC.Settings(coordinates=10, seed=seed)).judge(round_of(rows, number=number)).scores

    assert out(1) == out(1)
    assert out(1) != out(2)
    assert out(1) != out(1, seed=1)


def test_identical_uploads_and_single_ones_are_no_error() -> None:
    same = DnC(DnC.Settings(malicious=0)).judge(round_of(torch.ones(4, 6)))
    assert same.weights == [0.25] * 4
    assert DnC(DnC.Settings()).judge(round_of(torch.ones(1, 6))).weights == [1.0]


def test_too_few_uploads_for_its_guarantee_or_for_what_it_drops_get_no_verdict() -> None:
    for params, needed in (({"malicious": 3}, 7), ({"malicious": 2, "filter_fraction": 3.0}, 7)):
        judge = DnC(DnC.Settings(**params)).judge
        judge(round_of(torch.randn(needed, 6)))
        with pytest.raises(TooFewUploads, match=f"{needed} usable uploads are needed, found {needed - 1}"):
            judge(round_of(torch.randn(needed - 1, 6)))
