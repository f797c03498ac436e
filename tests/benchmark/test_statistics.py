"""Intervals against every possible resample, differences, and what may be claimed."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from benchmark.measures.intervals import Measurement, difference, estimate, interval, surely_positive


def by_seed(*values, run="run"):
    return {seed: Measurement(value, (f"{run}{seed}",)) for seed, value in enumerate(values)}


def test_the_interval_is_that_of_all_possible_resamples() -> None:
    values = [0.2, 0.5, 0.9, 0.4, 0.55]
    means = [np.mean(resample) for resample in product(values, repeat=5)]
    assert interval(values) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, 12)
    reference = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert interval(values.tolist()) == pytest.approx((reference.low, reference.high), abs=0.003)


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(0, 1, (300, 30))
    covered = sum(low < 0 < high for low, high in (interval(sample.tolist()) for sample in samples))
    assert 0.90 < covered / 300 < 0.98


def test_one_seed_has_no_interval_and_none_no_estimate() -> None:
    found = estimate(by_seed(0.5))
    assert found is not None
    assert (found.mean, found.low, found.high, found.seeds) == (0.5, None, None, 1)
    assert estimate({}) is None


def test_the_same_values_always_give_the_same_interval() -> None:
    assert interval([0.1, 0.2, 0.4]) == interval([0.1, 0.2, 0.4])
    assert interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))


def test_a_difference_is_of_the_seeds_that_both_have_and_names_all_runs() -> None:
    first = by_seed(0.9, 0.8, 0.7, run="a")
    second = {seed: Measurement(value - 0.1, (f"b{seed}",)) for seed, value in ((1, 0.8), (2, 0.7), (5, 0.0))}
    found = difference(first, second)
    assert found is not None
    assert (found.mean, found.seeds) == (pytest.approx(0.1), 2)
    assert found.runs == ("a1", "b1", "a2", "b2")
    assert difference(by_seed(0.5), {7: Measurement(0.5, ())}) is None


def test_a_claim_needs_what_students_t_asks_for() -> None:
    generator = np.random.default_rng(3)
    agreed = 0
    for _ in range(200):
        values = generator.normal(0.05, 0.05, 3)
        reference = ttest_1samp(values, 0)
        expected = reference.statistic > 0 and reference.pvalue < 0.05
        assert surely_positive(by_seed(*values)) == expected
        agreed += expected
    assert 0 < agreed < 200
    assert not surely_positive(by_seed(0.5))
    assert not surely_positive({})


def test_three_seeds_that_agree_in_sign_are_not_enough() -> None:
    values = by_seed(0.01, 0.02, 0.2)
    found = estimate(values)
    assert found is not None
    assert found.low > 0
    assert not surely_positive(values)
