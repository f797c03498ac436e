"""Hostile claims: numbers of samples that are none, or too large."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from hostile.cases import case, heading
from hostile.network import CLAIM

SAMPLES = "samples|claim|num_samples|decod|forbidden|allowed|name"
CAPPED = "median|largest_weight|counts"
LARGEST = 5 * CLAIM  # no client counts for more than 5 times the median claim


def claim(*outcomes: Any, report: str | None = None, **more: Any) -> Callable[..., Any]:
    return case("claim", *outcomes, report=report, **more)


heading("too many samples")


@claim("taken", report=CAPPED, stands_for=LARGEST)
def claim_of_a_thousand_billion() -> Any:
    """1e12"""
    return 1e12


@claim("taken", report=CAPPED, stands_for=LARGEST)
def claim_of_six_times_the_others() -> Any:
    """six times what the others claim"""
    return 6 * CLAIM


@claim("taken", "left out", report=f"{CAPPED}|{SAMPLES}", stands_for=LARGEST)
def claim_whose_sums_overflow() -> Any:
    """1e308, with which sums overflow"""
    return 1e308


@claim("taken", "left out", report=f"{CAPPED}|{SAMPLES}", stands_for=LARGEST)
def claim_of_1e300() -> Any:
    """1e300"""
    return 1e300


@claim("taken", "left out", report=f"{CAPPED}|{SAMPLES}", stands_for=LARGEST)
def claim_beyond_64_bits() -> Any:
    """2^64"""
    return 2**64


@claim("left out", report=SAMPLES)
def claim_of_ten_to_the_400() -> Any:
    """10^400, too large for a float"""
    return 10**400


@claim("left out", report=SAMPLES)
def claim_of_ten_to_the_5000() -> Any:
    """10^5000, too long to be written"""
    return 10**5000


@claim("left out", report=SAMPLES)
def claim_of_a_fraction_too_large() -> Any:
    """a fraction of 10^400"""
    return Fraction(10**400)


heading("numbers that are no number of samples")


@claim("left out", report=SAMPLES)
def claim_of_minus_3() -> Any:
    """-3"""
    return -3


@claim("left out", report=SAMPLES)
def claim_of_0() -> Any:
    """0"""
    return 0


@claim("left out", report=SAMPLES)
def claim_of_minus_1e308() -> Any:
    """-1e308"""
    return -1e308


@claim("left out", report=SAMPLES)
def claim_of_nan() -> Any:
    """NaN"""
    return float("nan")


@claim("left out", report=SAMPLES)
def claim_of_infinity() -> Any:
    """infinity"""
    return float("inf")


@claim("left out", report=SAMPLES)
def claim_of_minus_infinity() -> Any:
    """minus infinity"""
    return float("-inf")


@claim("left out", "taken", report=SAMPLES, stands_for=1e-320)
def claim_of_nearly_nothing() -> Any:
    """1e-320"""
    return 1e-320


@claim("left out", "taken", report=SAMPLES, stands_for=1.0)
def claim_of_true() -> Any:
    """true"""
    return True


@claim("left out", report=SAMPLES)
def claim_of_a_complex_number() -> Any:
    """a complex number"""
    return 20 + 1j


@claim("left out", report=SAMPLES)
def claim_of_a_signaling_decimal() -> Any:
    """a decimal that raises when used"""
    return Decimal("sNaN")


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_a_decimal() -> Any:
    """a decimal number"""
    return Decimal("20")


heading("numbers of other libraries")


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_a_numpy_integer() -> Any:
    """a numpy integer"""
    return np.int64(20)


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_a_tensor_of_one_number() -> Any:
    """a tensor of one number"""
    return torch.tensor(20.0)


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_a_tensor_that_requires_a_gradient() -> Any:
    """a tensor that requires a gradient"""
    return torch.tensor(20.0, requires_grad=True)


@claim("left out", report=SAMPLES)
def claim_of_a_tensor_of_nan() -> Any:
    """a tensor that holds NaN"""
    return torch.tensor(float("nan"))


@claim("left out", report=SAMPLES)
def claim_of_a_sparse_tensor() -> Any:
    """a sparse tensor"""
    return torch.tensor([20.0]).to_sparse()


@claim("left out", report=SAMPLES)
def claim_of_a_meta_tensor() -> Any:
    """a tensor without data"""
    return torch.tensor(20.0, device="meta")


@claim("left out", report=SAMPLES)
def claim_of_a_thousand_numbers() -> Any:
    """an array of 1,000 numbers"""
    return np.arange(1000.0)


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_an_array_of_one_number() -> Any:
    """an array of one number"""
    return np.array([20.0])


@claim("left out", report=SAMPLES)
def claim_of_an_array_of_objects() -> Any:
    """an array of objects"""
    return np.array([None, {}], dtype=object)


@claim("left out", report=SAMPLES)
def claim_of_a_long_double() -> Any:
    """1e400 in numpy's longest float"""
    return np.longdouble("1e400")


@claim("left out", report=SAMPLES)
def claim_of_a_date() -> Any:
    """a date"""
    return np.datetime64("2020-01-01")


heading("no number")


@claim("left out", report=SAMPLES)
def claim_of_nothing() -> Any:
    """nothing (None)"""
    return None


@claim("left out", report=SAMPLES)
def claim_of_text() -> Any:
    """text"""
    return "many"


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_digits_in_text() -> Any:
    """digits as text"""
    return "20"


@claim("left out", report=SAMPLES)
def claim_of_text_that_says_infinity() -> Any:
    """the text "1e999" """
    return "1e999"


@claim("left out", report=SAMPLES)
def claim_of_900_kb_of_text() -> Any:
    """900 kB of text with line breaks and terminal codes"""
    return "\x1b[2J\nround 1: test accuracy 0.9999\n" * 25_000


@claim("left out", "taken", report=SAMPLES, stands_for=20.0)
def claim_of_bytes() -> Any:
    """bytes"""
    return b"20"


@claim("left out", report=SAMPLES)
def claim_of_a_list() -> Any:
    """a list"""
    return [20.0]


@claim("left out", report=SAMPLES)
def claim_of_lists_in_lists() -> Any:
    """lists in lists, 150 deep"""
    return nested(150)


@claim("left out", report=SAMPLES, on_the_wire=False)
def claim_of_lists_in_lists_5000_deep() -> Any:
    """lists in lists, 5,000 deep"""
    return nested(5000)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@claim("left out", report=SAMPLES)
def claim_that_holds_itself() -> Any:
    """a list that holds itself"""
    value: list[Any] = []
    value.append(value)
    return value


@claim("left out", report=SAMPLES)
def claim_of_a_dictionary() -> Any:
    """a dictionary"""
    return {"samples": 20}


@claim("left out", report=SAMPLES)
def claim_of_a_set() -> Any:
    """a set"""
    return {20}


class Number:
    """Fails with an error that no conversion is known to raise, when asked for its value and when printed."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


@claim("left out", report=SAMPLES)
def claim_that_fails_when_read() -> Any:
    """an object that fails when it is read"""
    return Number()


class Growing(float):
    """20 the first time that it is compared, and more each time."""

    def __float__(self) -> float:
        return 1e300

    def __mul__(self, other: Any) -> float:
        return 1e300


@claim("left out", "taken", report=SAMPLES, stands_for=LARGEST)
def claim_of_a_number_that_lies() -> Any:
    """a number that says 20 and multiplies as 1e300"""
    return Growing(20.0)
