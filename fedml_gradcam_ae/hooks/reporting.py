"""From what the hooks saw to the report of a round, and who listens to it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from fedml_gradcam_ae import events, recorder
from fedml_gradcam_ae.federation import sample_weights
from fedml_gradcam_ae.hooks.federation import Federation


def report_round(federation: Federation) -> events.RoundReport:
    """The report of the round that is being aggregated; the truth about the attackers enters only here."""
    verdict, judged = federation.verdict, federation.judged
    attackers = None if federation.attackers is None else set(federation.attackers)
    position = {client: i for i, client in enumerate(judged.client_ids)} if judged is not None else {}
    reasons = {**(judged.rejected if judged is not None else {}), **(verdict.reasons if verdict is not None else {})}
    undefended = judged is None
    shares = sample_weights(list(federation.samples.values()), [False] * len(federation.samples)) if undefended else []

    def of(values: Any, client: Any, unusable: Any) -> Any:
        """The client's entry in one of the verdict's lists."""
        if verdict is None or values is None:
            return None
        return values[position[client]] if client in position else unusable

    clients = []
    for index, client in enumerate(federation.client_ids):
        rejected = judged is not None and client in judged.rejected
        clients.append(
            events.ClientReport(
                client=client,
                samples=federation.samples[client],
                score=of(verdict and verdict.scores, client, float("inf")),
                flagged=True if rejected else of(verdict and verdict.flagged, client, True),
                excluded=True if rejected else of(verdict and verdict.excluded, client, True),
                weight=shares[index]
                if undefended
                else 0.0
                if rejected
                else of(verdict and verdict.weights, client, 0.0),
                malicious=None if attackers is None else client in attackers,
                reason=reasons.get(client),
            )
        )
    stays = verdict is not None and verdict.weights is not None and not any(verdict.weights)
    return events.RoundReport(
        number=federation.number,
        clients=clients,
        threshold=None if verdict is None else verdict.threshold,
        seconds={} if verdict is None else verdict.seconds,
        global_model_stays=stays,
        evidence={} if verdict is None else verdict.evidence,
        judged=[] if judged is None else judged.client_ids,
    )


def watch(args: Any, settings: Any) -> AbstractContextManager[None]:
    """Listeners for one run: the log always, a folder where the settings name one, wandb where FedML has it on."""
    listeners: list[events.Listener] = [recorder.log_event]
    if folder := getattr(settings, "record_dir", None):
        listeners.append(recorder.FolderRecorder(folder))
    if getattr(args, "enable_wandb", False):
        listeners.append(recorder.log_to_wandb)
    return events.listening(*listeners)
