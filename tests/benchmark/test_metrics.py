"""Metrics by hand and against scikit-learn; None wherever there is nothing to measure."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmark.measures import metrics
from benchmark.measures.metrics import (
    attack_success,
    durability,
    of_decisions,
    of_one_decision,
    of_one_ranking,
    seconds_per_round,
    source_recall,
    worst_class_accuracy,
)
from benchmark.measures.results import RoundTest, RunResult
from judged import judgment

NAMES = {"recall", "precision", "FPR", "ACC", "F1", "MCC", "balanced accuracy"}


def test_a_decision_by_hand() -> None:
    # two of three attackers caught, one of five benign clients accused
    found = of_one_decision([True] * 3 + [False] * 5, [True, True, False, True] + [False] * 4)
    assert found == pytest.approx(
        {
            "recall": 2 / 3,
            "precision": 2 / 3,
            "FPR": 1 / 5,
            "ACC": 6 / 8,
            "F1": 2 / 3,
            "MCC": (2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5),
            "balanced accuracy": (2 / 3 + 4 / 5) / 2,
        }
    )


@pytest.mark.parametrize(
    ("truth", "accused", "undefined"),
    [
        ([False, False], [True, False], NAMES - {"FPR", "ACC"}),
        ([True, True], [True, False], {"FPR", "MCC", "balanced accuracy"}),
        ([True, False], [False, False], {"precision", "MCC"}),
        ([True, False], [True, True], {"MCC"}),
        ([], [], NAMES),
    ],
    ids=["nobody attacks", "all attack", "nobody accused", "all accused", "nobody at all"],
)
def test_what_cannot_be_measured_is_none_and_not_zero(truth, accused, undefined) -> None:
    assert {name for name, value in of_one_decision(truth, accused).items() if value is None} == undefined


def test_scores_are_scikit_learns_also_with_ties() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        truth = generator.permutation([True] * 3 + [False] * 9)
        scores = generator.integers(0, 6, 12) / 10
        found = of_one_ranking(truth.tolist(), scores.tolist())
        assert found["AUROC"] == pytest.approx(roc_auc_score(truth, scores))
        assert found["AUPRC"] == pytest.approx(average_precision_score(truth, scores))


def test_an_unusable_upload_is_infinitely_suspicious_and_a_client_without_score_does_not_count() -> None:
    truth = [True, False, False, True]
    assert of_one_ranking(truth, [math.inf, 1e300, 3.0, math.nan])["AUROC"] == 1.0
    assert of_one_ranking(truth, [1.0, math.inf, 3.0, math.nan])["AUROC"] == 0.0
    assert of_one_ranking(truth, [math.nan, 2.0, 3.0, math.nan]) == {"AUROC": None, "AUPRC": None}


def test_a_new_metric_is_one_decorated_function(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "OF_DECISIONS", dict(metrics.OF_DECISIONS))

    @of_decisions("accused", "fraction", better="lower")
    def share_accused(truth, accused):
        """Share of all clients that are accused."""
        return sum(accused) / len(accused)

    assert of_one_decision([True, False, False, False], [True, True, False, False])["accused"] == 0.5
    assert metrics.OF_DECISIONS["accused"].heading == "accused (fraction)"
    assert metrics.OF_DECISIONS["accused"].explanation == "Share of all clients that are accused."


def test_every_metric_says_what_it_is_and_nothing_is_in_per_cent() -> None:
    for table in (metrics.OF_RUNS, metrics.OF_DECISIONS, metrics.OF_SCORES, metrics.OF_DETECTORS):
        for metric in table.values():
            assert metric.explanation.endswith(".")
            assert metric.unit in {"fraction", "-1 to 1", "s", "MiB", "rounds"}


def test_seconds_are_averaged_over_rounds() -> None:
    assert seconds_per_round([judgment(seconds={"total": 1.0}), judgment(seconds={"total": 3.0})]) == 2
    assert seconds_per_round([judgment(seconds={})]) is None
    assert seconds_per_round([]) is None


def test_the_worst_class_is_of_the_last_test_and_skips_classes_without_images() -> None:
    run = RunResult(
        "x", {}, {}, {}, {}, {}, [], 0, tests=[RoundTest(1, 0.5, [0.1, 0.9]), RoundTest(2, 0.6, [0.4, None])]
    )
    assert worst_class_accuracy(run) == 0.4
    assert worst_class_accuracy(RunResult("x", {}, {}, {}, {}, {}, [], 0)) is None


def attacked(rates, last_round=None, **attack):
    """A run whose attack success rate after round 1, 2, ... is as given, with recalls of three classes."""
    attack = {"type": "badnets", **({} if last_round is None else {"last_round": last_round}), **attack}
    tests = [RoundTest(number, 0.9, [0.8, None, 0.3], rate) for number, rate in enumerate(rates, start=1)]
    return RunResult("x", {}, {}, {}, attack, {}, [], 0, tests=tests)


def test_the_success_rate_is_that_of_the_last_test() -> None:
    assert attack_success(attacked([0.9, 0.25])) == 0.25
    assert attack_success(attacked([None, None])) is None
    assert attack_success(attacked([])) is None


def test_the_recall_of_the_source_class_is_that_of_flipped_labels() -> None:
    assert source_recall(attacked([0.9], type="label_flip", source=2)) == 0.3
    assert source_recall(attacked([0.9], type="label_flip", source=1)) is None  # without test images
    assert source_recall(attacked([0.9], type="label_flip")) is None
    assert source_recall(attacked([0.9], type="semantic", source=2)) is None
    assert source_recall(attacked([], type="label_flip", source=2)) is None


@pytest.mark.parametrize(
    ("rates", "last_round", "expected"),
    [
        ([0.2, 0.9, 0.8, 0.6, 0.5, 0.4, 0.7], 3, 3),  # below one half after round 6 for the first time
        ([0.9, 0.8, 0.3], 2, 1),
        ([0.9, 0.4, 0.9], 2, 0),  # below already after the last round with an attack
        ([0.9, 0.8, 0.7], 2, None),  # never falls
        ([0.1, 0.4, 0.9, 0.2], 2, None),  # never succeeded while it lasted
        ([0.9, 0.2], None, None),  # has no end
        ([0.9, 0.2], 5, None),  # outlasts the run
        ([None, None], 1, None),
        ([], 1, None),
    ],
)
def test_durability_by_hand(rates, last_round, expected) -> None:
    assert durability(attacked(rates, last_round)) == expected
