"""Listeners that record a run: JSON lines and pictures in a folder, log lines, and wandb if FedML has it on."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from fedml_gradcam_ae.contract.shown import shown
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.recording.events import ClientReport, Event, Measured, RoundReport, Tested, Triggered

log = logging.getLogger("fedml_gradcam_ae")
_NAMED = 10  # Maximum number of clients listed in the log line about shortened uploads.

_LOGGED = {"Test/Acc": "test accuracy", "Attack/Success": "attack success rate"}  # The logged metrics, in words.

ROUNDS, METRICS = FILES = ("rounds.jsonl", "metrics.jsonl")


class FolderRecorder:
    """Listener that appends to `rounds.jsonl` and `metrics.jsonl` in a folder and draws pictures.

    It draws two pictures of every round with heat maps, and one of every round in which a backdoor's attackers took
    part. Every line carries the time at which its run started, so that several runs may share a folder.

    Args:
        folder: the folder to write to; made when needed.
        pictures: whether to draw pictures.
    """

    def __init__(self, folder: str | Path, pictures: bool = True) -> None:
        self.folder = Path(folder)
        self.pictures = pictures
        self.run = datetime.now().astimezone().isoformat(timespec="seconds")

    def try_out(self) -> None:
        """Make the folder and write to it, so that a problem is found before the first round.

        Raises:
            OSError: if the folder or a file in it cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        trial = self.folder / f".trial-{os.getpid()}"
        trial.write_text("This file may be removed.\n", encoding="utf-8")
        trial.unlink()
        for name in FILES:
            if (self.folder / name).exists():
                with (self.folder / name).open("a", encoding="utf-8"):
                    pass

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, Tested):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(event, Measured):
            # The loss of a model that an attack has ruined may be NaN or infinite; it is written as null.
            values = {name: _finite(value) for name, value in event.values.items()}
            self._append(METRICS, {"round": event.number, **values})
            return
        if isinstance(event, Triggered):
            if self.pictures:
                draw_trigger(event, self.folder)
            return
        self._append(ROUNDS, as_json(event))
        if self.pictures and "heat_maps" in event.evidence:
            from fedml_gradcam_ae.recording import pictures  # matplotlib is slow to import, so only if it is needed

            pictures.save(pictures.heat_maps(event), self.folder / f"round-{event.number:03d}-heat-maps.png")
            pictures.save(pictures.errors(event), self.folder / f"round-{event.number:03d}-errors.png")

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self.run, **line}, allow_nan=False) + "\n")


def draw_trigger(event: Triggered, folder: Path) -> None:
    """Draw the heat maps of an image without and with a trigger; nothing for a network without feature maps.

    Args:
        event: the models and the image.
        folder: for the picture, `round-001-trigger-maps.png` in round 1.
    """
    # matplotlib is slow to import, so only if it is needed
    from fedml_gradcam_ae.recording import pictures
    from fedml_gradcam_ae.recording.trigger_maps import trigger_maps

    found = trigger_maps(event)
    if found is not None:
        pictures.save(pictures.trigger(found), folder / f"round-{event.number:03d}-trigger-maps.png")


def as_json(report: RoundReport) -> dict[str, Any]:
    """Return the report of a round as plain JSON values.

    JSON has no NaN and no infinity: an infinite score, for instance, becomes null.
    """
    return {
        "round": report.number,
        "threshold": _finite(report.threshold),
        "global_model_stays": report.global_model_stays,
        "seconds": dict(report.seconds),
        "notes": list(report.notes),
        "clients": [_client_as_json(client) for client in report.clients],
        "watched": {
            name: {
                "scores": watched.scores and [_finite(score) for score in watched.scores],
                "flagged": watched.flagged,
                "excluded": watched.excluded,
                "threshold": _finite(watched.threshold),
                "seconds": dict(watched.seconds),
            }
            for name, watched in report.watched.items()
        },
    }


def _client_as_json(client: ClientReport) -> dict[str, Any]:
    line = {**asdict(client), "score": _finite(client.score), "samples": _finite(client.samples)}
    if client.counted is None:  # the usual case, which is left out to keep the lines short
        del line["counted"]
    return line


def _finite(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return shown(value)
    return number if math.isfinite(number) else None


def show_log() -> None:
    """Print the plug-in's log lines to stderr, unless the program has set up logging itself."""
    if log.handlers or log.isEnabledFor(logging.INFO):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # FedML's first log line gives the root logger a handler too, which would print lines twice


def log_event(event: Event) -> None:
    """Log an event in a few lines on the logger `fedml_gradcam_ae`."""
    if isinstance(event, Tested | Triggered):
        return
    if isinstance(event, Measured):
        for name, value in event.values.items():
            if name in _LOGGED:
                log.info("round %d: %s %.4f", event.number, _LOGGED[name], value)
        return
    if attackers := [str(client.client) for client in event.clients if client.malicious]:
        log.info("round %d: attacking: %s", event.number, ", ".join(attackers))
    for note in event.notes:
        log.warning("round %d: %s", event.number, note)
    if all(client.excluded is None for client in event.clients):
        return
    out = [client for client in event.clients if client.excluded]
    if event.global_model_stays:
        log.warning("round %d: no client is left, the global model stays as it was", event.number)
    names = ", ".join(_describe(client, event.threshold) for client in out) or "none"
    log.info("round %d: left out %s of %d clients: %s", event.number, len(out), len(event.clients), names)
    if shortened := [f"{client.client} ({client.shortened})" for client in event.clients if client.shortened]:
        names = ", ".join(shortened[:_NAMED]) + (", ..." if len(shortened) > _NAMED else "")
        log.info("round %d: kept with shortened steps (number of tensors): %s", event.number, names)


def _describe(client: ClientReport, threshold: float | None) -> str:
    if client.reason is not None:
        return f"{client.client} ({client.reason})"
    if client.score is not None and threshold is not None:
        sign = ">" if client.flagged else "<="
        return f"{client.client} (score {client.score:.4g} {sign} {threshold:.4g})"
    return str(client.client)


def log_to_wandb(event: Event) -> None:
    """Log the defense's counts, scores and times to FedML's own wandb run; FedML logs the metrics there itself."""
    if not isinstance(event, RoundReport):
        return
    import wandb

    values: dict[str, Any] = {"round": event.number, "Defense/Excluded": sum(bool(c.excluded) for c in event.clients)}
    if event.threshold is not None:
        values["Defense/Threshold"] = event.threshold
    if "total" in event.seconds:
        values["Defense/Seconds"] = event.seconds["total"]
    scores: dict[ClientId, float] = {c.client: c.score for c in event.clients if c.score is not None}
    values.update({f"Defense/Score/{client}": score for client, score in scores.items() if math.isfinite(score)})
    wandb.log(values)
