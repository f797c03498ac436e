"""Running simulations: each one is FedML's, through the plug-in; a finished one is not run again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import fedml
from torch import nn
from tqdm import tqdm

import fedml_gradcam_ae
from benchmark import data, models
from benchmark import pictures as own_pictures
from benchmark.config import Config, Run
from benchmark.warm_start import warm_start
from fedml_gradcam_ae import pictures, registry
from fedml_gradcam_ae.events import Event, Measured, RoundReport, listening
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.recorder import FolderRecorder, as_json

Result = dict[str, Any]


def run_all(config: Config, out: Path) -> list[tuple[Run, Result]]:
    """Every run of a benchmark with its result, new or from an earlier time."""
    fedml_gradcam_ae.register()
    runs = config.runs()
    for run in runs:
        configuration.check(fedml_args(run))
    finished = {run.folder: result for run in runs if (result := _load(out / run.folder)) is not None}
    if finished:
        print(f"{len(finished)} of {len(runs)} simulations are finished already (delete {out} to run them anew).")
    missing = [run for run in runs if run.folder not in finished]
    _prepare(missing, out)
    rounds = len(missing) * config.federation.rounds
    with tqdm(total=rounds, unit="round", disable=not missing, dynamic_ncols=True) as bar:
        for run in missing:
            bar.set_description(run.title)
            finished[run.folder] = _simulate(run, out / run.folder, bar)
    return [(run, finished[run.folder]) for run in runs]


def fedml_args(run: Run) -> SimpleNamespace:
    """What FedML's YAML would hold for this run."""
    federation = run.federation
    args: dict[str, Any] = {
        "training_type": "simulation",
        "backend": "sp",
        "federated_optimizer": "FedAvg",
        "dataset": run.data.name,
        "model": run.model.name,
        "random_seed": run.seed,
        "comm_round": federation.rounds,
        "client_num_in_total": federation.clients,
        "client_num_per_round": federation.per_round,
        "epochs": federation.local_epochs,
        "client_optimizer": federation.optimizer,
        "learning_rate": federation.learning_rate,
        "weight_decay": federation.weight_decay,
        "batch_size": federation.batch_size,
        "frequency_of_the_test": 1,
        "enable_wandb": False,
        "using_gpu": False,
        "rank": 0,
    }
    for side, chosen, ours in (
        ("attack", run.attack, registry.attacks()),
        ("defense", run.defense, registry.defenses()),
    ):
        keys = {key: value for key, value in chosen.items() if key != "type"}
        name = chosen["type"]
        args[f"enable_{side}"] = name != "none"
        args[f"{side}_type"] = name
        if name.startswith(configuration.FEDML_PREFIX):
            args.update(keys)
        elif name != "none":
            draws = name in ours and "seed" in ours[name].Settings.model_fields
            args[f"{side}_params"] = {**({"seed": run.seed} if draws else {}), **keys}
    return SimpleNamespace(**args)


def _prepare(runs: list[Run], out: Path) -> None:
    """What can go wrong with data and models goes wrong here, before the first run; a picture of each partition."""
    first_of_seed = {run.seed: run for run in reversed(runs)}
    counts = {seed: data.class_counts(run) for seed, run in first_of_seed.items()}
    for run in first_of_seed.values():
        _network(run)
        data.record(run.data, out)
        figure = own_pictures.partition(run, counts[run.seed], data.read(run.data).classes)
        pictures.save(figure, out / f"partition-seed{run.seed}.png")


def _network(run: Run) -> nn.Module:
    images = data.read(run.data)
    return models.create(run, classes=len(images.classes), channels=images.train.shape[1])


def _simulate(run: Run, folder: Path, bar: tqdm[Any]) -> Result:
    """Run it; the result appears under its final name only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.iterdir():  # of a run that was interrupted
        leftover.unlink()
    _write_json(folder / "config.json", run.model_dump())
    accuracy: list[float] = []
    reports: list[RoundReport] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundReport):
            reports.append(event)
        elif isinstance(event, Measured) and "Test/Acc" in event.values:
            accuracy.append(event.values["Test/Acc"])
            bar.update()

    args = fedml_args(run)
    with (
        _log_file(folder / "run.log") as log,
        redirect_stdout(log),  # some of FedML's rules print
        listening(listen, FolderRecorder(folder, pictures=False)),
    ):
        fedml.init(args)
        device = fedml.device.get_device(args)
        dataset, network = data.load(run), _network(run)
        started = warm_start(run, network, folder.parent, bar.set_description)
        bar.set_description(run.title)
        fedml.FedMLRunner(args, device, dataset, network).run()

    votes = [report for report in reports if report.number % run.vote_every == 0]
    if votes and votes[-1].evidence:
        last = votes[-1]
        pictures.save(pictures.heat_maps(last), folder / f"round-{last.number:03d}-heat-maps.png")
        pictures.save(pictures.errors(last), folder / f"round-{last.number:03d}-errors.png")
    result: Result = {"accuracy": accuracy, "rounds": [as_json(report) for report in reports]}
    if started is not None:
        result["warm_start"] = started
    _write_json(folder / "result.json", result)
    return result


@contextmanager
def _log_file(path: Path) -> Iterator[TextIO]:
    """The plug-in's log lines in a file, instead of between the steps of the progress bar."""
    logger = logging.getLogger("fedml_gradcam_ae")
    with path.open("w", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        propagate, logger.propagate = logger.propagate, False
        try:
            yield file
        finally:
            logger.propagate = propagate
            logger.removeHandler(handler)


def _load(folder: Path) -> Result | None:
    try:
        result: Result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return result


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
