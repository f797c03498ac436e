"""Means over seeds with confidence intervals, and differences on the same seeds.

The interval is a percentile bootstrap: 95 % of the means of seeds drawn with replacement lie within it. With few seeds
it is too narrow. With three it is at most their range, and it excludes zero whenever all three values have the same
sign, which happens by chance in one case of four. What the report *claims* therefore rests on Student's t, which is
stricter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# The number of bootstrap samples.
RESAMPLES = 9999
# The confidence level of all intervals and tests.
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Attributes:
        mean: over seeds.
        low, high: the 95 % interval of the mean; None with a single seed, which gives no information on the spread.
        seeds: the number of seeds.
        runs: the folders of the runs that the mean was computed from.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """A measured value of one seed.

    Attributes:
        value: in the unit of the metric.
        runs: the folders of the runs that it was computed from.
    """

    value: float
    runs: tuple[str, ...]


BySeed = Mapping[int, Measurement]


def estimate(by_seed: BySeed) -> Estimate | None:
    """Return the mean and the interval over seeds.

    Args:
        by_seed: the measured value of each seed.

    Returns:
        The estimate; None without any seed.
    """
    if not by_seed:
        return None
    values = [measurement.value for measurement in by_seed.values()]
    low, high = interval(values)
    runs = dict.fromkeys(run for measurement in by_seed.values() for run in measurement.runs)
    return Estimate(float(np.mean(values)), low, high, len(values), tuple(runs))


def interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % percentile bootstrap interval of the mean.

    The resampling is seeded: the same values give the same interval.

    Args:
        values: one per seed.

    Returns:
        The lower and upper bound; (None, None) for fewer than two values.
    """
    if len(values) < 2:
        return None, None
    means = np.asarray(values, dtype=float)[_drawn(len(values))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(first: BySeed, second: BySeed) -> Estimate | None:
    """Return the mean difference on the seeds that both have, with its interval.

    Pairing by seed removes the variation that a seed causes in both.

    Args:
        first: the measured value of each seed.
        second: the values to subtract.

    Returns:
        First minus second; None if no seed is in both.
    """
    return estimate(differences(first, second))


def differences(first: BySeed, second: BySeed) -> BySeed:
    """Return first minus second for each seed that both have.

    Args:
        first: the measured value of each seed.
        second: the values to subtract.

    Returns:
        The differences by seed, each with the runs of both values.
    """
    return {
        seed: Measurement(first[seed].value - second[seed].value, first[seed].runs + second[seed].runs)
        for seed in first
        if seed in second
    }


def surely_positive(by_seed: BySeed) -> bool:
    """Return whether the mean is above zero by Student's t test.

    The confidence is 95 %, two-sided; the seeds' values are taken for draws from a normal distribution.

    Args:
        by_seed: the measured value of each seed.

    Returns:
        Whether the lower bound of the t interval is above zero; False for fewer than two seeds.
    """
    values = np.array([measurement.value for measurement in by_seed.values()])
    if len(values) < 2:
        return False
    reach = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return bool(values.mean() > reach)


@lru_cache(maxsize=32)
def _drawn(count: int) -> NDArray[np.int64]:
    """Return positions drawn with replacement, (RESAMPLES, count), by a fixed seed."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
