"""From the judgments of one detector in one run to its figures.

Two decisions can be measured: whom the aggregation *left out*, and whom the rule *accused* in that round. They differ
with votes and removals, and for rules that follow a single upload: leaving out everybody else is no detection. The
tables hold both; the report shows the one that `deciding` names, and says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from benchmark.measures import metrics
from benchmark.measures.judgments import Judgment

Decision = Literal["left out", "accused"]
DECISIONS: tuple[Decision, ...] = ("left out", "accused")


def decided(judgment: Judgment, decision: Decision) -> Sequence[bool] | None:
    """One entry per client, or None for a rule that does not tell clients apart."""
    return judgment.excluded if decision == "left out" else judgment.flagged


def follows_one(judgments: Sequence[Judgment]) -> bool:
    """Whether the rule never keeps more than one upload, as Krum and GradCAM-Krum do."""
    known = [judgment.excluded for judgment in judgments if judgment.excluded is not None]
    return bool(known) and all(len(excluded) - sum(excluded) <= 1 for excluded in known)


def deciding(judgments: Sequence[Judgment]) -> Decision:
    """The decision that the report shows: whom it left out, but whom it accused for a rule that follows one upload."""
    names_somebody = any(judgment.excluded is not None for judgment in judgments)
    return "left out" if names_somebody and not follows_one(judgments) else "accused"


def at_votes(judgments: Sequence[Judgment], every: int) -> list[Judgment]:
    """The rounds that are votes."""
    return [judgment for judgment in judgments if judgment.round % every == 0]


def averages(judgments: Sequence[Judgment], decision: Decision) -> Mapping[str, float | None]:
    """Every metric of the decisions, mean over the rounds in which it is defined."""
    found = [
        metrics.of_one_decision(judgment.malicious, out)
        for judgment in judgments
        if judgment.malicious is not None and (out := decided(judgment, decision)) is not None
    ]
    return {name: _mean([values[name] for values in found]) for name in metrics.OF_DECISIONS}


def score_averages(judgments: Sequence[Judgment]) -> Mapping[str, float | None]:
    """Every metric of the scores, mean over the rounds in which it is defined."""
    found = [
        metrics.of_one_ranking(judgment.malicious, judgment.scores)
        for judgment in judgments
        if judgment.malicious is not None and judgment.scores is not None
    ]
    return {name: _mean([values[name] for values in found]) for name in metrics.OF_SCORES}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
