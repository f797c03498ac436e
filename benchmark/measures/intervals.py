"""Means over seeds, how far to trust them, and differences on the same seeds.

The interval is a percentile bootstrap: 95 % of the means of seeds drawn with replacement lie within it. With few seeds
it is too narrow (with three it is their range at most, and leaves out zero whenever all three agree in sign, as chance
alone has it in one case of four), so that what the report *claims* rests on Student's t instead, which asks for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 9999
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number of the report.

    Attributes:
        mean: over seeds.
        low, high: its 95 % interval; None with a single seed, which says nothing about the next one.
        seeds: how many.
        runs: the folders of the runs that it comes from.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One value of one seed, and the folders of the runs that it comes from."""

    value: float
    runs: tuple[str, ...]


BySeed = Mapping[int, Measurement]


def estimate(by_seed: BySeed) -> Estimate | None:
    """Mean and interval over seeds; None without any."""
    if not by_seed:
        return None
    values = [measurement.value for measurement in by_seed.values()]
    low, high = interval(values)
    runs = dict.fromkeys(run for measurement in by_seed.values() for run in measurement.runs)
    return Estimate(float(np.mean(values)), low, high, len(values), tuple(runs))


def interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The 95 % percentile bootstrap interval of the mean; the same values always give the same one."""
    if len(values) < 2:
        return None, None
    means = np.asarray(values, dtype=float)[_drawn(len(values))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(first: BySeed, second: BySeed) -> Estimate | None:
    """First minus second on the seeds that both have: what a seed does to both of them cancels out."""
    return estimate(differences(first, second))


def differences(first: BySeed, second: BySeed) -> BySeed:
    """First minus second, seed by seed."""
    return {
        seed: Measurement(first[seed].value - second[seed].value, first[seed].runs + second[seed].runs)
        for seed in first
        if seed in second
    }


def surely_positive(by_seed: BySeed) -> bool:
    """Whether the mean is above zero with two-sided 95 % confidence, taking the seeds for draws from a normal."""
    values = np.array([measurement.value for measurement in by_seed.values()])
    if len(values) < 2:
        return False
    reach = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return bool(values.mean() > reach)


@lru_cache(maxsize=32)
def _drawn(count: int) -> NDArray[np.int64]:
    """(RESAMPLES, count): positions drawn with replacement."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
