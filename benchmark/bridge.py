"""Gives the runs of `runs.py` the files that the report reads: matrix.json, and tests.jsonl in each folder."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark.config import Config, Run
from benchmark.runs import Result


def write_matrix(config: Config, results: list[tuple[Run, Result]], out: Path) -> None:
    """Of a benchmark that has just been run."""
    entries = []
    for run, result in results:
        entries.append(
            {"folder": run.folder, "title": run.title, "watch": [], **run.model_dump(exclude={"vote_every"})}
        )
        lines = [
            json.dumps({"round": number, "accuracy": accuracy, "class_accuracy": []})
            for number, accuracy in enumerate(result["accuracy"], start=1)
        ]
        (out / run.folder / "tests.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    matrix = {
        "name": config.name,
        "rounds": config.federation.rounds,
        "vote_every": config.vote_every,
        "runs": entries,
    }
    (out / "matrix.json").write_text(json.dumps(matrix, indent=1) + "\n", encoding="utf-8")
