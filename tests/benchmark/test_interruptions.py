"""A matrix that is killed again and again has the results of one that nobody disturbed."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import yaml

from patience import PATIENCE

ROOT = Path(__file__).parents[2]
PATIENTLY = 0.003  # seconds between two looks

CONFIG = {
    "name": "killed",
    "data": {
        "name": "digits",
        "size": 16,
        "train_images": 400,
        "test_images": 200,
        "partition": "dirichlet",
        "beta": 0.5,
    },
    "model": {"name": "small_cnn"},
    "warm_start": {"epochs": 12, "learning_rate": 0.01, "batch_size": 8},
    "federation": {
        "clients": 5,
        "per_round": 5,
        "rounds": 3,
        "local_epochs": 1,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "batch_size": 16,
    },
    "attacks": [{"type": "uniform_noise", "attackers": 1}],
    "defenses": ["none", {"type": "gradcam_ae", "profile": "paper", "probe_size": 32, "map_size": 8, "epochs": 5}],
    "watch": [
        {"type": "krum", "malicious": 1},
        {"type": "fldetector", "window": 2},
    ],
    "seeds": [0, 1],
}
RUNS = 2 * 2 * 2  # seeds, attacks, defenses

# What may differ between two runs of the same: when it was, how long it took, how much memory it took.
MOMENT = {"run"}
FIGURES = {"seconds", "peak_memory_bytes"}
COLUMNS = {"whole run (s)", "peak memory (MiB)", "mean per round (s)", "longest round (s)"}
METRICS = {"whole run", "peak memory", "seconds per round"}
OF_METRICS = {"mean", "95 % interval from", "95 % interval to"}
SHOWING_THEM = re.compile(r"\.lock|report\.html|table\.txt|figures/runtime.*")


class Command:
    """`python -m benchmark run` as a process, in a group of its own with its workers."""

    def __init__(self, config, out, jobs) -> None:
        self.out, self.log = out, out.with_name(f"{out.name}-{time.monotonic_ns()}.log")
        self.had = {path.parent for path in finished(out)}
        self.started = time.time_ns()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmark", "run", config, "--out", out, "--jobs", str(jobs)],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wrote(self, pattern):
        return [path for path in self.out.glob(pattern) if changed(path) > self.started]

    def until(self, condition) -> None:
        """Until the condition holds, or the command has ended."""
        end = time.monotonic() + PATIENCE
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(PATIENTLY)

    def finish(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()

    def signal_all(self, number) -> None:
        """Also to the workers that have outlived their main process."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    @property
    def gone(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


@dataclass(frozen=True)
class Kill:
    """A moment, and who is killed then.

    Attributes:
        stage: what the command is to be at.
        nth: the n-th epoch of all its warm starts, or how many runs it has finished before.
        within: at most so many seconds later, drawn.
        whom: "all", the "main" process alone, or the main process while its workers "freeze": they are as good as in
            the middle of a long computation until the next command is there.
    """

    stage: str
    nth: int = 0
    within: float = 0.0
    whom: str = "all"

    def reached(self, command) -> bool:
        match self.stage:
            case "start":
                return True
            case "warm start":
                return len(re.findall(r"warm start, epoch \d", command.log.read_text())) >= self.nth
            case "workers":
                return bool(command.wrote("matrix.json"))
            case "runs":
                done = {path.parent for path in finished(command.out)} - command.had
                tested = {path.parent for path in command.wrote("*/tests.jsonl")}
                return len(done) >= self.nth and bool(tested - done)
            case "report":
                return bool(command.wrote("results/runtime.csv"))
        raise AssertionError(self.stage)

    def happen(self, command, draw) -> bool:
        """Whether it hit a living process."""
        command.until(lambda: self.reached(command))
        time.sleep(draw.uniform(0, self.within))
        lived = command.process.poll() is None
        if self.whom == "all":
            command.signal_all(signal.SIGKILL)
        else:
            if self.whom == "freeze":
                command.signal_all(signal.SIGSTOP)
            command.process.kill()
        return (command.process.wait() == -signal.SIGKILL) and lived


def kills(draw):
    return [
        Kill("start", within=4.0),
        Kill("warm start", nth=draw.randint(1, 11)),  # of 12 for each seed
        Kill("warm start", nth=draw.randint(13, 23), whom="main"),
        Kill("workers", within=8.0, whom="main"),
        Kill("runs", nth=draw.randint(1, 2), within=0.5, whom="freeze"),
        Kill("runs", nth=draw.randint(1, 2), within=0.5, whom="main"),
        Kill("report", within=1.5),
    ]


@pytest.mark.long
def test_seven_kills_leave_the_results_of_an_undisturbed_matrix(tmp_path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    commands = [Command(config, tmp_path / "undisturbed", jobs=1)]
    try:
        commands[0].finish()
        draw, out = random.Random(0), tmp_path / "killed"
        hits, lasting = Counter(), {}
        frozen = None
        for kill in kills(draw):
            commands.append(command := Command(config, out, jobs=2))
            if frozen is not None:
                thaw(frozen, command)
            hits[kill.stage] += kill.happen(command, draw)
            now = finished(out) | {path: changed(path) for path in out.glob("warm-starts/*.safetensors")}
            assert now.items() >= lasting.items()  # nothing is done twice
            if kill.stage == "runs":
                assert len(now) > len(lasting)  # and each command comes further
            lasting, frozen = now, command if kill.whom == "freeze" else None
        commands.append(last := Command(config, out, jobs=2))
        last.finish()
        assert f"{RUNS} of {RUNS} simulations are finished already" in last.log.read_text()
        assert hits.total() >= 6, hits
        assert hits["warm start"] >= 2, hits
        assert hits["runs"] >= 2, hits
        assert hits["report"] >= 1, hits
        assert all(command.gone for command in commands)
    finally:
        for command in commands:
            command.signal_all(signal.SIGKILL)
    same(tmp_path / "undisturbed", out)


def thaw(frozen, command) -> None:
    """Let orphans go on when the next command waits for them or, worse, has begun a run anew that they are at."""
    command.until(lambda: "is in use by" in command.log.read_text() or command.wrote("*/config.json"))
    frozen.signal_all(signal.SIGCONT)


def finished(out):
    return {path: changed(path) for path in out.glob("*/result.json")}


def changed(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # a leftover, gone since it was listed
        return 0


def same(first, second) -> None:
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert {path.relative_to(second) for path in second.rglob("*") if path.is_file()} == files
    assert sum(path.name == "result.json" for path in files) == RUNS
    compared = [path for path in files if not SHOWING_THEM.fullmatch(str(path))]
    assert [str(path) for path in sorted(compared) if content(first / path) != content(second / path)] == []


def content(path):
    """What a file says, without what may differ."""
    match path.suffix:
        case ".json":
            return without(json.loads(path.read_text()), FIGURES)
        case ".jsonl":
            return [without(json.loads(line), FIGURES | MOMENT) for line in path.read_text().splitlines()]
        case ".csv":
            with path.open(newline="") as file:
                return [without_figures(row) for row in csv.DictReader(file)]
        case ".safetensors":
            return {name: (tensor.dtype, tensor.tolist()) for name, tensor in safetensors.torch.load_file(path).items()}
    return path.read_bytes()


def without(value, keys):
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    if isinstance(value, dict):
        return {key: without(item, keys) for key, item in value.items() if key not in keys}
    return value


def without_figures(row):
    out = COLUMNS | (OF_METRICS if row.get("metric") in METRICS else set())
    return {heading: cell for heading, cell in row.items() if heading not in out}
