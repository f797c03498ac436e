"""A benchmark's folder without any training: as many runs as wanted, their figures drawn from known distributions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

FEDERATION = {"clients": 20, "per_round": 20, "rounds": 12, "local_epochs": 2, "optimizer": "adam"}
VERSIONS = {"fedml": "0.9.6", "fedml-gradcam-ae": "0.1.0", "numpy": "1.26.4", "torch": "2.14.1"}
CLASSES = 10


@dataclass(frozen=True)
class Detector:
    """How a made-up rule judges.

    Attributes:
        separation: how far the attackers' scores lie above the benign ones', in their standard deviations, by attack.
        follows_one: whether it keeps the lowest score alone and accuses as many as there are attackers.
        scores: whether it writes its scores down.
        seconds: what it takes, on average.
    """

    separation: dict[str, float] = field(default_factory=dict)
    follows_one: bool = False
    scores: bool = True
    seconds: float = 0.5


def accuracy_of(attack: str, defense: str, round: int, seed: int) -> float:
    """Rises to 0.8; uniform noise ruins the undefended run, others cost less, and Krum has its price anyway."""
    harm = {"none": 0.0, "uniform_noise": 0.7, "mpaf": 0.6, "fang": 0.25, "alie": 0.1}.get(attack, 0.3)
    kept = {"none": 1.0, "gradcam_ae": 0.5, "multi_krum": 0.1, "fedml:krum": 0.3, "trimmed_mean": 0.2}.get(defense, 0.4)
    price = {"fedml:krum": 0.15, "gradcam_krum": 0.12, "fedml:rfa": 0.3}.get(defense, 0.01) * (defense != "none")
    noise = np.random.default_rng([seed, round, len(attack), len(defense)]).normal(0, 0.01)
    return float(np.clip((0.8 - price - harm * kept) * (1 - math.exp(-round / 3)) + noise, 0.02, 1.0))


def write(
    out: Path,
    attacks: Sequence[dict[str, Any]],
    defenses: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    watch: Sequence[str] = (),
    detectors: dict[str, Detector] | None = None,
    settings: Sequence[dict[str, Any]] = ({"name": "digits", "partition": "iid"},),
    rounds: int = 6,
    clients: int = 10,
    malicious: int = 2,
    vote_every: int = 3,
    accuracy: Callable[[str, str, int, int], float] = accuracy_of,
    failed: Sequence[int] = (),
    missing: Sequence[int] = (),
    paper: Sequence[str] = (),
    sweep: Sequence[dict[str, Any]] = (),
    validation_seeds: Sequence[int] = (),
) -> list[str]:
    """Write matrix.json and a folder for each run; the positions in `failed` and `missing` do not finish.

    Returns:
        The folders' names.
    """
    detectors = detectors or {}
    entries = []
    for data, seed, attack, defense in product(settings, seeds, attacks, defenses):
        position = len(entries)
        names = (attack["type"], defense["type"], f"seed{seed}", f"{position:012x}")
        entry = {
            "folder": "--".join(name.replace(":", "-") for name in names),
            "title": ", ".join(names[:3]),
            "data": data,
            "model": {"name": "small_cnn"},
            "federation": {**FEDERATION, "clients": clients, "per_round": clients, "rounds": rounds},
            "attack": attack,
            "defense": defense,
            "watch": [{"name": name, "type": name} for name in watch],
            "seed": seed,
        }
        entries.append(entry)
        if position in missing:
            continue
        folder = out / entry["folder"]
        folder.mkdir(parents=True)
        _write(
            folder / "config.json", {**entry, "versions": VERSIONS, "command": "python -m benchmark run made-up.yaml"}
        )
        if position in failed:
            (folder / "error.txt").write_text("Traceback:\n  <somewhere>\nRuntimeError: Expected 4 & found <5>\n")
            continue
        _write_lines(folder / "tests.jsonl", _tests(entry, rounds, accuracy))
        if watch or attack["type"] != "none" or defense["type"] != "none":
            lines = _rounds(entry, position, detectors, rounds, clients, malicious, vote_every)
            _write_lines(folder / "rounds.jsonl", lines)
        _write(folder / "result.json", {"seconds": 100.0 + position, "peak_memory_bytes": 2**30, "rounds": rounds})
    out.mkdir(parents=True, exist_ok=True)
    matrix = {
        "name": "made up",
        "rounds": rounds,
        "vote_every": vote_every,
        "paper": list(paper),
        "sweep": list(sweep),
        "validation_seeds": list(validation_seeds),
        "runs": entries,
    }
    _write(out / "matrix.json", matrix)
    return [entry["folder"] for entry in entries]


def _tests(entry: dict[str, Any], rounds: int, accuracy: Callable[..., float]) -> list[dict[str, Any]]:
    lines = []
    for number in range(1, rounds + 1):
        value = accuracy(entry["attack"]["type"], entry["defense"]["type"], number, entry["seed"])
        by_class = [max(0.0, value - 0.01 * position) for position in range(CLASSES - 1)]
        lines.append({"round": number, "accuracy": value, "class_accuracy": [*by_class, None]})
    return lines


def _rounds(
    entry: dict[str, Any],
    position: int,
    detectors: dict[str, Detector],
    rounds: int,
    clients: int,
    malicious: int,
    vote_every: int,
) -> list[dict[str, Any]]:
    generator = np.random.default_rng(position)
    attack, defense = entry["attack"]["type"], entry["defense"]["type"]
    truth = [attack != "none" and client < malicious for client in range(clients)]
    judges = {
        name: Judge(detectors.get(name, Detector()), attack, malicious, vote_every)
        for name in dict.fromkeys([*(watch["name"] for watch in entry["watch"]), defense])
    }
    lines = []
    for number in range(1, rounds + 1):
        said = {name: judge(number, truth, generator) for name, judge in judges.items()}
        own = said[defense]
        quiet = defense == "none"
        lines.append(
            {
                "run": "2026-01-01T00:00:00+00:00",
                "round": number,
                "threshold": None if quiet else own["threshold"],
                "global_model_stays": False,
                "seconds": {} if quiet else own["seconds"],
                "clients": [
                    {
                        "client": client,
                        "samples": 70.0,
                        "score": None if quiet or own["scores"] is None else own["scores"][client],
                        "flagged": None if quiet else own["flagged"][client],
                        "excluded": None if quiet else own["excluded"][client],
                        "weight": 1 / clients,
                        "malicious": truth[client],
                        "reason": None,
                    }
                    for client in range(clients)
                ],
                "watched": {watch["name"]: said[watch["name"]] for watch in entry["watch"]},
            }
        )
    return lines


class Judge:
    """Flags above mean + standard deviation; a vote leaves out who was flagged in most of its rounds."""

    def __init__(self, detector: Detector, attack: str, malicious: int, vote_every: int) -> None:
        self.detector = detector
        self.distance = detector.separation.get(attack, 0.0)
        self.malicious = malicious
        self.vote_every = vote_every
        self.flags: list[np.ndarray] = []

    def __call__(self, number: int, truth: list[bool], generator: np.random.Generator) -> dict[str, Any]:
        """One round, as rounds.jsonl has it of a watcher."""
        scores = generator.normal(10, 1, len(truth)) + self.distance * np.array(truth)
        if self.detector.follows_one:
            threshold = None
            flagged = scores >= np.sort(scores)[-self.malicious]
            excluded = scores > scores.min()
        else:
            threshold = float(scores.mean() + scores.std())
            flagged = excluded = scores > threshold
            self.flags.append(flagged)
            if number % self.vote_every == 0:
                window = np.array(self.flags[-self.vote_every :])
                excluded = window.sum(axis=0) > self.vote_every / 2
        total = float(self.detector.seconds * generator.uniform(0.9, 1.1))
        return {
            "scores": scores.tolist() if self.detector.scores else None,
            "flagged": flagged.tolist(),
            "excluded": excluded.tolist(),
            "threshold": threshold if self.detector.scores else None,
            "seconds": {"total": total},
        }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
