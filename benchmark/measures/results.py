"""The folder of a benchmark, read back: all planned runs, whether finished, failed or missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.measures import judgments
from benchmark.measures.judgments import Judgment
from fedml_gradcam_ae.contract.settings import SettingsError

State = Literal["finished", "failed", "missing"]


@dataclass(frozen=True)
class RoundTest:
    """The test of the global model after one round.

    Attributes:
        round: the number of the round, from 1.
        accuracy: on the whole test set (fraction).
        class_accuracy: per class (fraction); None for a class without test images.
        success: the attack success rate (fraction); None without a targeted attack.
    """

    round: int
    accuracy: float
    class_accuracy: Sequence[float | None]
    success: float | None = None


@dataclass(frozen=True)
class RunResult:
    """One simulation: its settings and, if it finished, its results.

    Attributes:
        folder: its name inside the benchmark's folder; every number of the report names the runs that it comes from by
            it.
        data, model, federation, attack, defense, watch, seed: as in matrix.json.
        state: "finished", "failed" (see `error`) or "missing": not started, or interrupted.
        error: the content of error.txt of a failed run; None for others.
        config: the whole of config.json, versions included; empty while the run is missing.
        tests: the tested rounds in their order.
        acting: the judgments of the acting defense, round by round; empty without a defense.
        watched: the judgments of each detector that watched, by its name.
        seconds: wall-clock time of the whole run (s).
        peak_memory: of the run's process (bytes).
        pictures: paths of the PNG files of heat maps and reconstruction errors.
    """

    folder: str
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    federation: Mapping[str, Any]
    attack: Mapping[str, Any]
    defense: Mapping[str, Any]
    watch: Sequence[Mapping[str, Any]]
    seed: int
    state: State = "missing"
    error: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tests: Sequence[RoundTest] = ()
    acting: Sequence[Judgment] = ()
    watched: Mapping[str, Sequence[Judgment]] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory: int | None = None
    pictures: Sequence[Path] = ()


@dataclass(frozen=True)
class Results:
    """A whole benchmark.

    Attributes:
        name: of the configuration.
        rounds: the number of rounds of each run.
        vote_every: rounds divisible by this number are votes.
        runs: in the order of the configuration.
        paper: tables and figures of the paper that the report compares with.
        sweep: the defenses whose settings are chosen, one entry for each combination of settings.
        validation_seeds: the seeds that settings are chosen on; no figure of a table comes from them.
    """

    name: str
    rounds: int
    vote_every: int
    runs: Sequence[RunResult]
    paper: Sequence[str] = ()
    sweep: Sequence[Mapping[str, Any]] = ()
    validation_seeds: Sequence[int] = ()

    @property
    def finished(self) -> list[RunResult]:
        """Return the runs that finished."""
        return [run for run in self.runs if run.state == "finished"]

    @property
    def judged(self) -> list[RunResult]:
        """Return the finished runs that figures come from: all but those that settings are chosen on."""
        return [run for run in self.finished if run.seed not in self.validation_seeds]


def load(out: Path) -> Results:
    """Read the folder that `python -m benchmark run` wrote.

    Args:
        out: the results folder.

    Returns:
        The results of all planned runs.

    Raises:
        SettingsError: if it is no such folder, or a file in it is damaged.
    """
    if not (out / "matrix.json").is_file():
        raise SettingsError(
            f"{out} holds no matrix.json: it must be a folder that `python -m benchmark run CONFIG --out {out}` wrote."
        )
    matrix = _object(out / "matrix.json")
    try:
        runs = [_load_run(out / entry["folder"], entry) for entry in matrix["runs"]]
        return Results(
            name=matrix["name"],
            rounds=matrix["rounds"],
            vote_every=matrix["vote_every"],
            runs=runs,
            paper=matrix.get("paper", ()),
            sweep=matrix.get("sweep", ()),
            validation_seeds=matrix.get("validation_seeds", ()),
        )
    except KeyError as error:
        raise SettingsError(
            f"A file in {out} lacks the key {error}, so that another version must have written it: run the benchmark "
            "again, into a new folder."
        ) from error


def _load_run(folder: Path, entry: Mapping[str, Any]) -> RunResult:
    plan = {
        name: entry[name] for name in ("folder", "data", "model", "federation", "attack", "defense", "watch", "seed")
    }
    config = _object(folder / "config.json") if (folder / "config.json").exists() else {}
    if (folder / "result.json").exists():  # written last: the run finished
        result = _object(folder / "result.json")
        lines = _lines(folder / "rounds.jsonl")
        said = [judgments.watched(line) for line in lines]
        return RunResult(
            **plan,
            state="finished",
            config=config,
            tests=[
                RoundTest(line["round"], line["accuracy"], line["class_accuracy"], line.get("success"))
                for line in _lines(folder / "tests.jsonl")
            ],
            acting=[] if entry["defense"]["type"] == "none" else [judgments.acting(line) for line in lines],
            watched={name: [round[name] for round in said if name in round] for name in _names(said)},
            seconds=result.get("seconds"),
            peak_memory=result.get("peak_memory_bytes"),
            pictures=sorted(folder.glob("*.png")),
        )
    if (folder / "error.txt").exists():
        error = (folder / "error.txt").read_text(encoding="utf-8", errors="replace")
        return RunResult(**plan, state="failed", error=error, config=config)
    return RunResult(**plan, config=config)


def _names(rounds: Sequence[Mapping[str, Judgment]]) -> list[str]:
    return list(dict.fromkeys(name for said in rounds for name in said))


def _object(path: Path) -> dict[str, Any]:
    return _parse(path.read_text(encoding="utf-8"), str(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the parsed lines of a JSON lines file.

    A missing file has no lines: a run without attack, defense and watchers reports nothing about its rounds.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [_parse(line, f"{path}, line {number}") for number, line in enumerate(file, start=1)]


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{where} is not JSON ({error}): delete its folder and run the benchmark again.") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{where} must be a JSON object, found {type(content).__name__}.")
    return content
