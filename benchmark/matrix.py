"""All runs of a benchmark: those that are finished stay, the others run, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import fedml_gradcam_ae
from benchmark import data
from benchmark import pictures as own_pictures
from benchmark.config import Config, Run
from benchmark.runs import create, describe, fedml_args, simulate, watchers, write_json
from benchmark.warm_start import warm_start
from benchmark.workers import Workers
from fedml_gradcam_ae import pictures
from fedml_gradcam_ae.hooks import configuration


def run_all(config: Config, out: Path, jobs: int | None = None) -> int:
    """Run what is not finished.

    Args:
        config: the benchmark.
        out: the results folder.
        jobs: how many runs at a time, each in a process of its own; 1 stays in this one. None: one for each
            `threads` of the processor's.

    Returns:
        How many runs failed; the others are finished.

    Raises:
        SettingsError: before the first run, if any of them could not start.
    """
    fedml_gradcam_ae.register()
    runs = config.runs()
    for run in runs:
        configuration.check(fedml_args(run))
        watchers(run)
    missing = [run for run in runs if not (out / run.folder / "result.json").exists()]
    if len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} simulations are finished already (delete {out} to run anew).")
    _prepare(missing, out)
    write_json(
        out / "matrix.json",
        {
            "name": config.name,
            "rounds": max(run.federation.rounds for run in runs),
            "vote_every": config.vote_every,
            "paper": config.paper,
            "runs": [describe(run) for run in runs],
        },
    )
    if jobs is None:
        jobs = max(1, (os.cpu_count() or 1) // config.threads)
    with tqdm(
        total=sum(run.federation.rounds for run in missing), unit="round", disable=not missing, dynamic_ncols=True
    ) as bar:
        failed = _alone(missing, out, bar) if min(jobs, len(missing)) <= 1 else _together(missing, out, bar, jobs)
    for folder, reason in failed.items():
        print(f"failed: {folder}: {reason} (see {out / folder / 'error.txt'})")
    return len(failed)


def _alone(runs: list[Run], out: Path, bar: tqdm[Any]) -> dict[str, str]:
    failed = {}
    for run in runs:
        bar.set_description(run.title)
        try:
            simulate(run, out, bar.set_description, lambda: bar.update(1))
        except Exception as error:  # the others go on; the report shows this one
            failed[run.folder] = f"{type(error).__name__}: {error}"
        _summarize(run, failed.get(run.folder), bar.write)
    return failed


def _together(runs: list[Run], out: Path, bar: tqdm[Any], jobs: int) -> dict[str, str]:
    failed = {}
    bar.set_description(f"{len(runs)} runs, {min(jobs, len(runs))} at a time")
    with Workers(min(jobs, len(runs)), out) as workers:
        for run, event in workers.work_through(runs):
            if event == "round":
                bar.update()
                continue
            if event != "finished":
                failed[run.folder] = event
            _summarize(run, failed.get(run.folder), bar.write)
    return failed


def _summarize(run: Run, error: str | None, write: Callable[[str], None]) -> None:
    write(f"{run.title}: {'finished' if error is None else f'FAILED, {error}'}")


def _prepare(runs: list[Run], out: Path) -> None:
    """What can go wrong with data and models goes wrong here, before the first run; a picture of each partition."""
    seen: dict[str, Run] = {}
    for run in runs:
        seen.setdefault(f"{run.data.model_dump()} {run.federation.clients} {run.warm_start} {run.seed}", run)
    for number, run in enumerate(seen.values()):
        network = create(run)
        data.record(run.data, out)
        torch.set_num_threads(run.threads)
        warm_start(run, network, out, print)  # here and once, for all the runs that start from it
        figure = own_pictures.partition(run, data.class_counts(run), data.read(run.data).classes)
        only = len({str(other.data) for other in seen.values()}) == 1
        name = f"partition-seed{run.seed}" if only else f"partition-{number}-seed{run.seed}"
        pictures.save(figure, out / f"{name}.png")
