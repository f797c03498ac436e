"""How well attackers are told from benign clients; malicious counts as positive."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sklearn.metrics import confusion_matrix, precision_score, recall_score


def detection(rounds: Sequence[dict[str, Any]], every: int) -> dict[str, float | None]:
    """Recall, precision and false-positive rate of what was left out, as fractions, averaged over votes.

    Args:
        rounds: the `rounds` of a result, as `recorder.as_json` writes them.
        every: rounds divisible by this are votes; other rounds do not count.

    Returns:
        `recall`, `precision`, `false_positive_rate`; None where it means nothing: a defense that leaves nobody
        out by name, no attacker (recall, precision), no benign client. Precision is 0 where nobody is left out.
    """
    values: dict[str, list[float]] = {"recall": [], "precision": [], "false_positive_rate": []}
    for line in rounds:
        if line["round"] % every:
            continue
        truth = [client["malicious"] for client in line["clients"]]
        out = [client["excluded"] for client in line["clients"]]
        if None in truth or None in out:
            continue
        if any(truth):
            values["recall"].append(recall_score(truth, out))
            values["precision"].append(precision_score(truth, out, zero_division=0.0))
        if not all(truth):
            benign_kept, benign_out = confusion_matrix(truth, out, labels=[False, True])[0]
            values["false_positive_rate"].append(benign_out / (benign_kept + benign_out))
    return {name: fmean(found) if found else None for name, found in values.items()}


def seconds_per_round(rounds: Sequence[dict[str, Any]]) -> float | None:
    """What the defense itself took, mean over rounds (seconds)."""
    seconds = [line["seconds"]["total"] for line in rounds if "total" in line["seconds"]]
    return fmean(seconds) if seconds else None
