"""Evidence of gross outliers: by hand, and what it must not be disturbed by."""

import pytest
import torch

from fedml_gradcam_ae.contract.bounding import Steps, lower_median
from fedml_gradcam_ae.defenses.gradcam_ae.evidence import strongest
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Finding
from fedml_gradcam_ae.defenses.gradcam_ae.outliers import (
    FARTHEST_OUTPUT,
    FARTHEST_STEP,
    LIMIT,
    output_scores,
    step_scores,
)


def steps(*rows) -> Steps:
    lengths = torch.tensor(rows, dtype=torch.float64)
    names = [f"tensor{i}" for i in range(lengths.shape[1])]
    return Steps(names, lengths, lower_median(lengths), torch.ones(len(lengths), dtype=torch.float64))


def test_a_step_out_of_proportion_is_scored_by_its_ratio_and_named() -> None:
    usual = [1.0, 2.0, 3.0]
    scores, why = step_scores(steps(usual, usual, usual, [1.0, 200.0, 3.0], usual))
    assert scores.tolist() == pytest.approx([0, 0, 0, 100 / FARTHEST_STEP, 0])
    assert why[3] == "its change of 'tensor1' is 100 times as long as the median client's"


def test_a_client_that_moves_everything_far_is_not_out_of_proportion() -> None:
    usual = [1.0, 2.0, 3.0]
    scores, _ = step_scores(steps(usual, usual, usual, [500.0, 900.0, 1000.0], usual))
    assert scores.tolist() == [0] * 5


def test_a_client_that_moves_nothing_else_is_compared_with_the_others_only() -> None:
    usual = [1.0, 2.0, 3.0]
    scores, _ = step_scores(steps(usual, usual, usual, [0.0, 20.0, 0.0], usual))
    assert scores.tolist() == [0] * 5


@pytest.mark.parametrize("length", [1e38, float("inf")])
def test_an_endless_step_has_a_finite_score_and_leaves_the_others_alone(length) -> None:
    usual = [1.0, 2.0, 3.0]
    scores, _ = step_scores(steps(usual, usual, usual, usual, [1.0, length, 3.0]))
    assert scores[:4].tolist() == [0] * 4
    assert 1 < float(scores[4]) <= LIMIT


def test_tensors_that_most_clients_leave_alone_tell_nothing() -> None:
    scores, _ = step_scores(steps([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 9.0]))
    assert scores.tolist() == [0] * 4
    assert step_scores(steps([0.0], [0.0], [0.0], [9.0]))[0].tolist() == [0] * 4


def test_three_clients_are_too_few_for_either() -> None:
    assert step_scores(steps([1.0, 1.0], [1.0, 1.0], [1.0, 1e9]))[0].tolist() == [0] * 3
    outputs = torch.zeros(3, 2, 4)
    outputs[1, :, 0] = 1e9
    assert output_scores(outputs, torch.ones(2, 4)).tolist() == [0] * 3


def test_outputs_are_scored_in_units_of_the_global_models_or_of_the_usual_change() -> None:
    reference = torch.tensor([[3.0, -3.0], [3.0, -3.0]])
    change = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    outputs = torch.stack([reference + factor * change for factor in (1, 1, 1, 300, 60)])
    expected = [0, 0, 0, 300 / 3 / FARTHEST_OUTPUT, 0]
    assert output_scores(outputs, reference).tolist() == pytest.approx(expected)
    assert output_scores(outputs - reference, 0 * reference).tolist() == pytest.approx(
        [0, 0, 0, 300 / FARTHEST_OUTPUT, 60 / FARTHEST_OUTPUT]
    )


def test_a_change_that_all_classes_share_is_none() -> None:
    outputs = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    outputs[2] += 1e6
    assert output_scores(outputs, torch.zeros(3, 4)).tolist() == [0] * 6


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3e38])
def test_outputs_that_overflow_are_flagged_and_leave_the_others_alone(value) -> None:
    outputs = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    outputs[2, :, 1] = value
    scores = output_scores(outputs, torch.zeros(3, 4))
    assert 1 < float(scores[2]) <= LIMIT
    assert [float(score) for client, score in enumerate(scores) if client != 2] == [0] * 5


def test_the_strongest_kind_of_evidence_gives_its_reason() -> None:
    first = Finding(torch.tensor([0.0, 2.0]), ["a", "b"])
    second = Finding(torch.tensor([1.0, 1.0]), ["c", "d"])
    assert strongest([first, second])[1] == ["c", "b"]
