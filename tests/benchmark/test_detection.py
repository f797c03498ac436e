"""From judgments to a detector's figures: votes, the two decisions, means."""

import pytest

from benchmark.measures.detector_figures import at_votes, averages, deciding, follows_one, score_averages
from judged import judgment

TRUTH = [True, True, False, False, False]


def test_means_are_over_the_votes_in_which_a_metric_is_defined() -> None:
    rounds = [
        judgment(1, TRUTH, excluded=[False] * 5),
        judgment(3, TRUTH, excluded=[True, False, True, False, False]),
        judgment(6, TRUTH, excluded=[True, True, False, False, False]),
        judgment(9, TRUTH, excluded=[False] * 5),
        judgment(12, None, excluded=[True] * 5),
        judgment(15, TRUTH, excluded=None),
    ]
    votes = at_votes(rounds, 3)
    assert [vote.round for vote in votes] == [3, 6, 9, 12, 15]
    found = averages(votes, "left out")
    assert found["recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["precision"] == pytest.approx((0.5 + 1) / 2)  # nobody is accused in round 9
    assert found["FPR"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert set(averages([], "left out").values()) == {None}


def test_accused_and_left_out_are_two_things() -> None:
    (said,) = rounds = [judgment(3, TRUTH, flagged=[True, True] + [False] * 3, excluded=[True] * 4 + [False])]
    assert follows_one(rounds)
    assert deciding(rounds) == "accused"
    assert averages(rounds, "accused")["FPR"] == 0
    assert averages(rounds, "left out")["FPR"] == pytest.approx(2 / 3)
    assert said.scores is None
    assert score_averages(rounds) == {"AUROC": None, "AUPRC": None}


def test_a_rule_that_once_keeps_two_does_not_follow_a_single_upload() -> None:
    one, two = [True] * 4 + [False], [True] * 3 + [False] * 2
    rounds = [judgment(1, TRUTH, flagged=one, excluded=one), judgment(2, TRUTH, flagged=two, excluded=two)]
    assert deciding(rounds) == "left out"
    assert deciding(rounds[:1]) == "accused"


def test_a_rule_that_only_accuses_is_measured_by_whom_it_accuses() -> None:
    assert deciding([judgment(1, TRUTH, flagged=[True] + [False] * 4)]) == "accused"
    assert deciding([]) == "accused"


def test_scores_are_averaged_round_by_round() -> None:
    rounds = [judgment(3, TRUTH, scores=[9, 8, 1, 2, 3]), judgment(6, TRUTH, scores=[1009, 1001, 1002, 1003, 1004])]
    assert score_averages(rounds)["AUROC"] == pytest.approx((1 + 0.5) / 2)
