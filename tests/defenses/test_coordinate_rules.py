"""Trimmed mean and median against ByzFL, scipy and numpy."""

import byzfl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.median import Median
from fedml_gradcam_ae.defenses.trimmed_mean import TrimmedMean
from vectors import aggregate, matrices, round_of, rows_of, samples, vector_of


def close(found, expected, rows, round):
    """To the precision of the uploads, which hold the global model as well."""
    unit = np.finfo(rows.dtype).eps * (1 + np.abs(rows).max())
    return np.allclose(found, expected, rtol=0, atol=4 * unit)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(least=1), counts=samples, beta=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.49]))
def test_trimmed_mean_is_scipys_and_byzfls_whatever_the_sample_counts(rows, counts, beta) -> None:
    round = round_of(rows, counts[: len(rows)])
    found = aggregate(round, TrimmedMean(TrimmedMean.Settings(beta=beta)).judge(round))
    exact = rows_of(round)
    assert close(found, trim_mean(exact, beta, axis=0), rows, round)
    assert close(found, byzfl.TrMean(f=int(beta * len(rows)))(exact), rows, round)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(least=1), counts=samples)
def test_median_is_numpys_and_byzfls_for_even_and_odd_numbers_of_clients(rows, counts) -> None:
    round = round_of(rows, counts[: len(rows)])
    found = aggregate(round, Median(DefenseSettings()).judge(round))
    assert close(found, np.median(rows_of(round), axis=0), rows, round)
    assert close(found, byzfl.Median()(rows_of(round)), rows, round)


def test_torch_takes_the_lower_of_two_middle_values_and_we_do_not() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [9.0, 0.0]]).double()
    assert rows.median(dim=0).values[0] == 1
    assert aggregate(round_of(rows), Median(DefenseSettings()).judge(round_of(rows)))[0] == pytest.approx(2)


def test_values_are_trimmed_and_not_clients() -> None:
    """The case that FedML's trimmed mean keeps -1000 and 1000 of."""
    rows = torch.tensor([[0.0], [1.0], [1000.0], [-1000.0], [1.0]]).double().repeat(1, 2)
    round = round_of(rows, samples=[5, 4, 3, 2, 1])
    found = aggregate(round, TrimmedMean(TrimmedMean.Settings(beta=0.2)).judge(round))
    assert found == pytest.approx([2 / 3] * 2)


def test_a_poisoned_statistic_does_not_get_past_the_rule() -> None:
    """Averaged over all clients instead, one client's running mean would decide everybody's."""
    round = round_of(torch.zeros(6, 3))
    uploads = [dict(upload) for upload in round.uploads]
    for number, upload in enumerate(uploads):
        upload["statistic"] = torch.full((2,), 1e30 if number == 0 else 1.0)
    round = round_of(torch.zeros(6, 3), uploads=uploads)
    for defense in (TrimmedMean(TrimmedMean.Settings(beta=0.2)), Median(DefenseSettings())):
        assert defense.judge(round).model["statistic"].tolist() == [1.0, 1.0]


def test_nobody_is_left_out_by_name_and_the_types_stay() -> None:
    round = round_of(torch.randn(5, 4, dtype=torch.float64))
    verdict = Median(DefenseSettings()).judge(round)
    assert verdict.flagged is verdict.excluded is verdict.weights is None
    assert {name: tensor.dtype for name, tensor in verdict.model.items()} == {
        name: tensor.dtype for name, tensor in round.global_model.items()
    }
    assert not np.array_equal(vector_of(verdict.model), vector_of(round.global_model))
