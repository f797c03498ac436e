"""The numbers of samples that clients claim: which claims are usable, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low

import numpy as np

from fedml_gradcam_ae.contract.shown import shown

LARGEST_CLAIM = 2.0**53  # samples; up to here float64 holds every whole number, and no sum of claims overflows
LARGEST_WEIGHT = 5.0  # default of the setting `largest_weight`, in multiples of the median claim
_NUMBERS = (int, float, *(cls for cls in set(np.sctypeDict.values()) if issubclass(cls, np.integer | np.floating)))


def read_claim(samples: object) -> float | None:
    """Return a claimed number of samples as a float, or None if it cannot be used.

    Only whole numbers and floats of Python and numpy are read. Text, truth values, containers and tensors are not: to
    convert them would run code that the sender chose.

    Args:
        samples: what a client sent as its number of samples.

    Example:
        >>> read_claim(20), read_claim(-3), read_claim("20"), read_claim(10**400)
        (20.0, None, None, None)
    """
    cls = type(samples)
    if not any(cls is known for known in _NUMBERS) or not 0 < samples <= LARGEST_CLAIM:  # type: ignore[operator]
        return None
    return float(samples)  # type: ignore[arg-type]


def sample_problem(samples: object) -> str | None:
    """Return why a claimed number of samples cannot be used, or None if it can.

    Args:
        samples: what a client sent as its number of samples.

    Example:
        >>> sample_problem(20)
        >>> sample_problem(-3)
        'the claimed number of samples must be a positive finite number, found -3'
    """
    if read_claim(samples) is not None:
        return None
    if any(type(samples) is known for known in (int, float)) and LARGEST_CLAIM < samples < math.inf:  # type: ignore[operator]
        return f"the claimed number of samples must be at most 2**53, found {shown(samples)}"
    return f"the claimed number of samples must be a positive finite number, found {shown(samples)}"


def counted(claims: Sequence[float], largest_weight: float | None) -> list[float]:
    """Return what each claim counts as: at most `largest_weight` times the round's median claim.

    The median is the lower of the two middle claims: of two clients, the smaller claim is the median.

    Args:
        claims: numbers of samples.
        largest_weight: in multiples of the median claim; None: every claim counts in full.

    Returns:
        Numbers of samples, one per claim.

    Example:
        >>> counted([20, 19, 21, 1e12], largest_weight=5.0)
        [20.0, 19.0, 21.0, 100.0]
    """
    claims = [float(claim) for claim in claims]
    if largest_weight is None or not claims:
        return claims
    limit = largest_weight * median_low(claims)
    return [min(claim, limit) for claim in claims]
