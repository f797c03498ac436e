"""From what the hooks saw to the report of a round, and who listens to it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

from fedml_gradcam_ae import events, recorder
from fedml_gradcam_ae.federation import ClientId, Round, Verdict, sample_weights
from fedml_gradcam_ae.hooks.federation import Federation


def report_round(federation: Federation) -> events.RoundReport:
    """The report of the round that is being aggregated; the truth about the attackers enters only here."""
    verdict, judged, attackers = federation.verdict, federation.judged, federation.attackers
    found = _undefended(federation.samples) if judged is None else _defended(judged, verdict)
    clients = [
        events.ClientReport(
            client=client,
            samples=federation.samples[client],
            malicious=None if attackers is None else client in attackers,
            **found[client],
        )
        for client in federation.client_ids
    ]
    common: dict[str, Any] = {"number": federation.number, "clients": clients}
    if judged is None or verdict is None:
        return events.RoundReport(**common)
    return events.RoundReport(
        **common,
        threshold=verdict.threshold,
        seconds=verdict.seconds,
        global_model_stays=verdict.weights is not None and not any(verdict.weights),
        evidence=verdict.evidence,
        judged=judged.client_ids,
    )


def _undefended(samples: dict[ClientId, float]) -> dict[ClientId, dict[str, Any]]:
    """Without a defense every client has the weight of its samples."""
    weights = sample_weights(list(samples.values()), [False] * len(samples))
    return {client: {"weight": weight} for client, weight in zip(samples, weights, strict=True)}


def _defended(judged: Round, verdict: Verdict | None) -> dict[ClientId, dict[str, Any]]:
    """What a defense found, and those whose upload it was never shown."""
    found: dict[ClientId, dict[str, Any]] = {
        client: {
            "score": math.inf if verdict is not None and verdict.scores is not None else None,
            "flagged": True,
            "excluded": True,
            "weight": 0.0,
            "reason": reason,
        }
        for client, reason in judged.rejected.items()
    }
    for position, client in enumerate(judged.client_ids):
        found[client] = {}
        if verdict is None:  # a rule that cannot be told apart by client
            continue
        for name in ("score", "flagged", "excluded", "weight"):
            values = getattr(verdict, name if name in ("flagged", "excluded") else f"{name}s")
            found[client][name] = None if values is None else values[position]
        found[client]["reason"] = verdict.reasons.get(client)
    return found


def watch(args: Any, settings: Any) -> AbstractContextManager[None]:
    """Listeners for one run: the log always, a folder where the settings name one, wandb where FedML has it on."""
    listeners: list[events.Listener] = [recorder.log_event]
    if folder := getattr(settings, "record_dir", None):
        listeners.append(recorder.FolderRecorder(folder))
    if getattr(args, "enable_wandb", False):
        listeners.append(recorder.log_to_wandb)
    return events.listening(*listeners)
