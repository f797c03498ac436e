"""What one detector said of one round, read from a line of rounds.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judgment:
    """One detector, one round; lists run over the clients of the round.

    Attributes:
        round: its number, from 1.
        malicious: the truth; None where it is not known of everybody.
        scores: suspicion, infinite for an unusable upload, NaN for a client that was not judged; None without scores.
        flagged: whom the rule accuses in this round; None for a rule that does not tell clients apart.
        excluded: whom the aggregation loses, after votes and removals; None like `flagged`.
        threshold: of the scores, if there is one.
        seconds: what the judgment took, by stage (s).
    """

    round: int
    malicious: Sequence[bool] | None
    scores: Sequence[float] | None
    flagged: Sequence[bool] | None
    excluded: Sequence[bool] | None
    threshold: float | None
    seconds: Mapping[str, float]


def acting(line: Mapping[str, Any]) -> Judgment:
    """What the defense said that acted."""
    clients = line["clients"]
    return _judgment(
        line,
        scores=[client["score"] for client in clients],
        flagged=[client["flagged"] for client in clients],
        excluded=[client["excluded"] for client in clients],
        threshold=line["threshold"],
        seconds=line["seconds"],
    )


def watched(line: Mapping[str, Any]) -> dict[str, Judgment]:
    """What each detector said that did not act, by its name."""
    return {name: _judgment(line, **said) for name, said in line.get("watched", {}).items()}


def _judgment(
    line: Mapping[str, Any],
    scores: Any,
    flagged: Any,
    excluded: Any,
    threshold: float | None,
    seconds: dict[str, float],
) -> Judgment:
    return Judgment(
        round=line["round"],
        malicious=_whole([client["malicious"] for client in line["clients"]]),
        scores=_suspicion(scores, flagged),
        flagged=_whole(flagged),
        excluded=_whole(excluded),
        threshold=threshold,
        seconds=seconds,
    )


def _whole(values: Sequence[bool | None] | None) -> Sequence[bool] | None:
    """A list that knows everything, or None."""
    return None if values is None or None in values else [bool(value) for value in values]


def _suspicion(scores: Sequence[float | None] | None, flagged: Sequence[bool | None] | None) -> Sequence[float] | None:
    """JSON has no infinity: a score of null beside a flag is the infinite suspicion of an unusable upload."""
    if scores is None or all(score is None for score in scores):
        return None
    flags = flagged or [False] * len(scores)
    return [
        (math.inf if flag else math.nan) if score is None else score for score, flag in zip(scores, flags, strict=True)
    ]
