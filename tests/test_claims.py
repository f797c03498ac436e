"""Claimed numbers of samples: which are read, and what they count as."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedml_gradcam_ae.contract.claims import counted, read_claim, sample_problem
from fedml_gradcam_ae.contract.round import sample_weights
from fedml_gradcam_ae.contract.screening import pass_gate, screen


class Number(float):
    """A number whose conversion is the sender's."""

    def __float__(self):
        raise SystemExit

    def __lt__(self, other):
        raise SystemExit


def deep(depth):
    made = []
    for _ in range(depth):
        made = [made]
    return made


REFUSED = [
    *(10**400, 1e308, 2**53 + 1, -1, 0, 0.0, math.nan, math.inf, -math.inf, True, None, "20", b"20", 3 + 0j),
    *(Fraction(3), Decimal(3), Number(3), [20], (20,), {20}, {"n": 20}, deep(5000), object(), range(10**9), float),
    *(torch.tensor(20), torch.tensor(20.0, requires_grad=True), torch.empty((), device="meta"), np.array(20)),
    *(np.float64("nan"), np.longdouble("1e400"), np.bool_(True), np.complex64(3), "x" * 900_000),
]


@pytest.mark.parametrize("position", range(len(REFUSED)))
def test_a_claim_that_is_no_number_of_samples_is_refused_in_a_few_words(make_round, position) -> None:
    claim = REFUSED[position]
    assert read_claim(claim) is None
    assert len(sample_problem(claim)) < 200
    screened = screen(make_round(samples=[10, claim, 10, 10, 10, 10]))
    assert list(screened.rejected) == [101]


@pytest.mark.parametrize("claim", [20, 20.0, np.int64(20), np.float32(20), np.uint8(20), 2**53, 1e-9])
def test_numbers_of_python_and_numpy_are_read(claim) -> None:
    assert read_claim(claim) == float(claim)
    assert type(read_claim(claim)) is float


@given(st.lists(st.floats(1e-9, 2.0**53), min_size=1, max_size=30), st.floats(1, 100))
def test_no_claim_counts_for_more_than_so_many_medians(claims, largest) -> None:
    found = counted(claims, largest)
    middle = np.quantile(claims, 0.5, method="lower")
    assert np.allclose(found, np.minimum(claims, largest * middle), rtol=1e-12)
    assert math.isclose(sum(sample_weights(found, [False] * len(found))), 1)


def test_without_a_limit_claims_count_in_full() -> None:
    assert counted([1, 2**53], None) == [1, 2**53]


@pytest.mark.parametrize(("claims", "weight"), [([20, 1e12], 100), ([20, 21, 1e12], 105), ([1e12], 1e12)])
def test_few_clients_are_bounded_too(claims, weight) -> None:
    assert counted(claims, 5.0)[-1] == weight


def test_claims_that_are_cut_are_said_in_one_line(make_round) -> None:
    one = pass_gate(make_round(samples=[20, 19, 18, 19, 1e12, 17]))
    assert one.round.samples == [20, 19, 18, 19, 95, 17]
    assert one.notes == ["client 104 claims 1e+12 samples: counted as 95, 5 times the median"]
    two = pass_gate(make_round(samples=[20, 19, 18, 19, 1e12, 200]), largest_weight=2.0)
    assert two.notes == ["2 clients claim many samples: counted as 38, 2 times the median: 104 (1e+12), 105 (200)"]
    assert two.round.samples == [20, 19, 18, 19, 38, 38]
