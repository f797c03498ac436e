"""The judgments of detectors on single rounds, read from the lines of rounds.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Judgment:
    """The judgment of one detector on one round; lists have one entry per client of the round.

    Attributes:
        round: the number of the round, from 1.
        malicious: the truth; None if it is not known for all clients.
        scores: suspicion, infinite for an unusable upload, NaN for a client that was not judged; None without any
            score.
        flagged: the clients that the rule accuses in this round; None for a rule that flags no clients.
        excluded: the clients that the aggregation leaves out, after votes and removals; None as for `flagged`.
        threshold: the threshold of the scores; None if the rule has none.
        seconds: the time that the judgment took, by stage (s).
    """

    round: int
    malicious: Sequence[bool] | None
    scores: Sequence[float] | None
    flagged: Sequence[bool] | None
    excluded: Sequence[bool] | None
    threshold: float | None
    seconds: Mapping[str, float]


def acting(line: Mapping[str, Any]) -> Judgment:
    """Return the judgment of the defense that acted.

    Args:
        line: one parsed line of rounds.jsonl.
    """
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
    """Return the judgments of the detectors that watched, by name.

    Args:
        line: one parsed line of rounds.jsonl.
    """
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
    """Return the list as bool if it has a value for each client; otherwise None."""
    return None if values is None or None in values else [bool(value) for value in values]


def _suspicion(scores: Sequence[float | None] | None, flagged: Sequence[bool | None] | None) -> Sequence[float] | None:
    """Return the scores with infinity and NaN restored, which JSON does not have.

    A null score of a flagged client is the infinite suspicion of an unusable upload; without a flag it is NaN.
    """
    if scores is None or all(score is None for score in scores):
        return None
    flags = flagged or [False] * len(scores)
    return [
        (math.inf if flag else math.nan) if score is None else score for score, flag in zip(scores, flags, strict=True)
    ]
