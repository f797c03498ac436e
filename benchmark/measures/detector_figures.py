"""The detection metrics of one detector in one run, computed from its judgments.

Two decisions can be measured: the clients that the aggregation *left out*, and the clients that the rule *accused* in
that round. They differ if there are votes or removals, and for rules that keep a single upload: leaving out all other
clients is no detection. The tables hold both. The report shows the one that `deciding` names, and says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from benchmark.measures import metrics
from benchmark.measures.judgments import Judgment

# The decision that metrics are computed from; see the top of this file.
Decision = Literal["left out", "accused"]
DECISIONS: tuple[Decision, ...] = ("left out", "accused")


def decided(judgment: Judgment, decision: Decision) -> Sequence[bool] | None:
    """Return one decision of a judgment.

    Args:
        judgment: of one round.
        decision: "left out" or "accused".

    Returns:
        Whether each client is left out or accused, (clients,); None for a rule that flags no clients.
    """
    return judgment.excluded if decision == "left out" else judgment.flagged


def follows_one(judgments: Sequence[Judgment]) -> bool:
    """Return whether the rule never keeps more than one upload, as Krum and GradCAM-Krum do.

    Args:
        judgments: all rounds of one detector.
    """
    known = [judgment.excluded for judgment in judgments if judgment.excluded is not None]
    return bool(known) and all(len(excluded) - sum(excluded) <= 1 for excluded in known)


def deciding(judgments: Sequence[Judgment]) -> Decision:
    """Return the decision that the report shows.

    Args:
        judgments: all rounds of one detector.

    Returns:
        "left out"; but "accused" for a rule that never keeps more than one upload, and for one that flags no clients.
    """
    leaves_out_clients = any(judgment.excluded is not None for judgment in judgments)
    return "left out" if leaves_out_clients and not follows_one(judgments) else "accused"


def at_votes(judgments: Sequence[Judgment], every: int) -> list[Judgment]:
    """Return the judgments of the rounds that are votes.

    Args:
        judgments: of one detector.
        every: rounds divisible by this number are votes.
    """
    return [judgment for judgment in judgments if judgment.round % every == 0]


def averages(judgments: Sequence[Judgment], decision: Decision) -> Mapping[str, float | None]:
    """Return every metric of the decisions, averaged over the rounds in which it is defined.

    Args:
        judgments: of one detector.
        decision: "left out" or "accused".

    Returns:
        The mean of each metric of `OF_DECISIONS` by name; None if no round defines it.
    """
    found = [
        metrics.of_one_decision(judgment.malicious, out)
        for judgment in judgments
        if judgment.malicious is not None and (out := decided(judgment, decision)) is not None
    ]
    return {name: _mean([values[name] for values in found]) for name in metrics.OF_DECISIONS}


def score_averages(judgments: Sequence[Judgment]) -> Mapping[str, float | None]:
    """Return every metric of the scores, averaged over the rounds in which it is defined.

    Args:
        judgments: of one detector.

    Returns:
        The mean of each metric of `OF_SCORES` by name; None if no round defines it.
    """
    found = [
        metrics.of_one_ranking(judgment.malicious, judgment.scores)
        for judgment in judgments
        if judgment.malicious is not None and judgment.scores is not None
    ]
    return {name: _mean([values[name] for values in found]) for name in metrics.OF_SCORES}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
