"""The report of a round, and the listeners that receive it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from fedml_gradcam_ae.contract.claims import read_claim
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks.surroundings import Federation
from fedml_gradcam_ae.recording import events, recorder


def report_round(federation: Federation) -> events.RoundReport:
    """Return the report of the round that is being aggregated.

    The truth about the attackers, which a simulation knows, enters only here. Defenses never see it.

    Args:
        federation: the round with the results of the gate, the attack and the defense.
    """
    verdict, judged, attackers = federation.verdict, federation.judged, federation.attackers
    admitted = federation.admitted
    rejected = federation.rejected if admitted is None else admitted.rejected
    counted = {} if admitted is None else dict(zip(admitted.client_ids, admitted.samples, strict=True))
    claims = {client: read_claim(federation.samples[client]) for client in federation.client_ids}
    scored = verdict is not None and verdict.scores is not None
    found = {client: _unusable(reason, scored) for client, reason in rejected.items()}
    if judged is None:
        found |= _undefended(counted)
    else:
        found |= _defended(judged, verdict)
    weights = [client.get("weight") for client in found.values()]
    return events.RoundReport(
        number=federation.number,
        clients=[
            events.ClientReport(
                client=client,
                samples=math.nan if (claim := claims[client]) is None else claim,
                counted=limit if claim is not None and (limit := counted.get(client, claim)) < claim else None,
                malicious=None if attackers is None else client in attackers,
                **found[client],
            )
            for client in federation.client_ids
        ],
        threshold=None if verdict is None else verdict.threshold,
        seconds={} if verdict is None else verdict.seconds,
        global_model_stays=all(weight == 0 for weight in weights),
        evidence={} if verdict is None else verdict.evidence,
        judged=[] if judged is None else judged.client_ids,
        watched={name: _watched(verdict, federation) for name, verdict in federation.watched.items()},
        notes=tuple(federation.notes),
    )


def _watched(verdict: Verdict, federation: Federation) -> events.Watched:
    """Return a watching detector's verdict as lists over all clients of the round.

    An unusable upload has an infinite score and is flagged and excluded, as with a defense that acts.
    """

    judged = [] if federation.admitted is None else federation.admitted.client_ids

    def spread(values: Sequence[Any] | None, unusable: Any) -> list[Any] | None:
        if values is None:
            return None
        known = dict(zip(judged, values, strict=True))
        return [known.get(client, unusable) for client in federation.client_ids]

    return events.Watched(
        scores=spread(verdict.scores, math.inf),
        flagged=spread(verdict.flagged, True),
        excluded=spread(verdict.excluded, True),
        threshold=verdict.threshold,
        seconds=verdict.seconds,
    )


def _unusable(reason: str, scored: bool) -> dict[str, Any]:
    """Return the report fields of a client whose upload was unusable; no defense saw that upload."""
    score = math.inf if scored else None
    return {"score": score, "flagged": True, "excluded": True, "weight": 0.0, "reason": reason}


def _undefended(samples: dict[ClientId, float]) -> dict[ClientId, dict[str, Any]]:
    """Return the report fields of a round without a defense: weights in proportion to the samples."""
    weights = sample_weights(list(samples.values()), [False] * len(samples))
    return {client: {"weight": weight} for client, weight in zip(samples, weights, strict=True)}


def _defended(judged: Round, verdict: Verdict | None) -> dict[ClientId, dict[str, Any]]:
    """Return the report fields that follow from a verdict; empty ones for a rule that returns new models."""
    if verdict is None:
        return {client: {} for client in judged.client_ids}
    lists = {
        "score": verdict.scores,
        "flagged": verdict.flagged,
        "excluded": verdict.excluded,
        "weight": verdict.weights,
    }
    out = verdict.excluded or [False] * len(judged.client_ids)
    return {
        client: {name: None if values is None else values[position] for name, values in lists.items()}
        | {"reason": verdict.reasons.get(client), "shortened": 0 if out[position] else judged.shortened[position]}
        for position, client in enumerate(judged.client_ids)
    }


def listeners(args: Any, settings: Any) -> AbstractContextManager[None]:
    """Return a context manager that keeps the listeners of one run active.

    The listeners are the log, a folder if the settings name one (`record_dir`), and wandb if FedML has it on
    (`enable_wandb`).

    Args:
        args: FedML's args.
        settings: the settings of the defense that is on, or None.

    Raises:
        SettingsError: if the folder cannot be written to.
    """
    found: list[events.Listener] = [recorder.log_event]
    if folder := getattr(settings, "record_dir", None):
        folder_recorder = recorder.FolderRecorder(folder)
        try:
            folder_recorder.try_out()
        except OSError as error:
            raise SettingsError(
                f"defense_params.record_dir: {folder} cannot be written to: {error}. Name a folder that this process "
                "may write to, or leave record_dir out."
            ) from None
        found.append(folder_recorder)
    if getattr(args, "enable_wandb", False):
        found.append(recorder.log_to_wandb)
    return events.listening(*found)
