"""The schedule of a benchmark: which runs are missing, what they need, and how they run, several at a time.

A run is finished if its folder has a `result.json`, which is written last. Finished runs are kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import fedml_gradcam_ae
from benchmark import data
from benchmark.atomic_file import write_json
from benchmark.config import Config, Run, check_device
from benchmark.running import partition_picture
from benchmark.running.simulation import create, describe, fedml_args, set_up_torch, simulate, watchers
from benchmark.running.training_cache import FOLDER as TRAINED
from benchmark.running.warm_start import warm_start
from benchmark.running.workers import Workers
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.recording import pictures


def check_all(config: Config, out: Path) -> None:
    """Check, before anything is written, that the data exist and that all runs have valid settings.

    Args:
        config: the benchmark.
        out: the results folder; data of finished runs are not needed.

    Raises:
        SettingsError: for invalid settings, a missing GPU or missing data.
    """
    check_device(config)
    fedml_gradcam_ae.register()
    runs = config.runs()
    for run in runs:
        configuration.check(fedml_args(run))
        watchers(run)
    for images in dict.fromkeys(run.data.images for run in _missing(runs, out)):
        data.read(images)


def run_all(config: Config, out: Path, lock: int, jobs: int | None = None, remember: int = 0) -> int:
    """Run all simulations that are not finished, and write `matrix.json`, the list of all runs.

    Args:
        config: the benchmark.
        out: the results folder.
        lock: the file descriptor that `lock.locked` yields, which worker processes inherit.
        jobs: the number of runs at a time, each in its own process; 1: in this process. None: as many as the CPU's
            threads allow, with the configuration's `threads` each.
        remember: bytes of disk for a cache of local training, which is deleted at the end; 0: no cache.

    Returns:
        The number of failed runs; the others are finished.

    Raises:
        SettingsError: before the first run, if weights to start from are not available, there are too few images, or
            the images are not those of earlier results.
    """
    fedml_gradcam_ae.register()
    runs = config.runs()
    for incomplete in out.rglob("*.partial"):  # left by a killed command
        incomplete.unlink(missing_ok=True)
    missing = _missing(runs, out)
    if len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} simulations are finished already (delete {out} to run anew).")
    _prepare(runs, missing, out)
    write_json(
        out / "matrix.json",
        {
            "name": config.name,
            "rounds": max(run.federation.rounds for run in runs),
            "vote_every": config.vote_every,
            "paper": config.paper,
            "sweep": config.sweep,
            "validation_seeds": config.validation_seeds,
            "runs": [describe(run) for run in runs],
        },
    )
    if jobs is None:
        jobs = max(1, (os.cpu_count() or 1) // config.threads)
    rounds = sum(run.federation.rounds for run in missing)
    with tqdm(total=rounds, unit="round", disable=not missing, dynamic_ncols=True) as bar:
        if min(jobs, len(missing)) <= 1:
            failed = _run_here(missing, out, bar, remember)
        else:
            failed = _run_in_workers(missing, out, bar, remember, jobs, lock)
    shutil.rmtree(out / TRAINED, ignore_errors=True)
    for folder, reason in failed.items():
        print(f"failed: {folder}: {reason} (see {out / folder / 'error.txt'})")
    return len(failed)


def _missing(runs: list[Run], out: Path) -> list[Run]:
    """Return the runs that are not finished."""
    return [run for run in runs if not (out / run.folder / "result.json").exists()]


def _run_here(runs: list[Run], out: Path, bar: tqdm[Any], remember: int) -> dict[str, str]:
    """Run simulations one after the other in this process; return the errors of the failed ones, by folder."""
    failed = {}
    for run in runs:
        bar.set_description(run.title)
        try:
            simulate(run, out, bar.set_description, lambda: bar.update(1), remember)
        except Exception as error:  # other runs continue; the report shows this error
            failed[run.folder] = f"{type(error).__name__}: {error}"
        bar.write(_outcome(run, failed))
    return failed


def _run_in_workers(runs: list[Run], out: Path, bar: tqdm[Any], remember: int, jobs: int, lock: int) -> dict[str, str]:
    """Run simulations in worker processes; return the errors of the failed ones, by folder."""
    failed = {}
    bar.set_description(f"{len(runs)} runs, {min(jobs, len(runs))} at a time")
    with Workers(min(jobs, len(runs)), out, lock, remember) as workers:
        for run, event in workers.work_through(runs):
            if event == "round":
                bar.update()
                continue
            if event != "finished":  # then it is the error
                failed[run.folder] = event
            bar.write(_outcome(run, failed))
    return failed


def _outcome(run: Run, failed: Mapping[str, str]) -> str:
    """Return a line that says how a run ended."""
    return f"{run.title}: {f'FAILED, {failed[run.folder]}' if run.folder in failed else 'finished'}"


def _prepare(runs: list[Run], missing: list[Run], out: Path) -> None:
    """Make what the missing runs start from, so that errors appear before the first run.

    These are the networks, the records of the data, the weights of warm starts and a picture of each partition.

    Args:
        runs: all runs of the benchmark.
        missing: those that are not finished.
        out: the results folder.
    """
    for run in {(run.data, run.model, run.warm_start, run.seed): run for run in missing}.values():
        network = create(run)
        data.record(run.data, out)
        set_up_torch(run)
        warm_start(run, network, out, print)  # stored for all runs that start from these weights
    # Pictures are numbered over all runs, so that their names do not depend on which runs are missing.
    partitions = {_partition_settings(run): run for run in runs}
    wanted = {_partition_settings(run) for run in missing}
    same_data = len({run.data for run in runs}) == 1
    for number, (partition, run) in enumerate(partitions.items()):
        if partition in wanted:
            figure = partition_picture.partition(run, data.class_counts(run), data.read(run.data).classes)
            name = f"partition-seed{run.seed}" if same_data else f"partition-{number}-seed{run.seed}"
            pictures.save(figure, out / f"{name}.png")


def _partition_settings(run: Run) -> tuple[Any, ...]:
    """Return the settings that determine which images each client has."""
    return run.data, run.federation.clients, run.warm_start, run.seed
