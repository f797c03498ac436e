"""One simulation: FedML's simulator with the plug-in, which writes all results to files as they come."""

from __future__ import annotations

import json
import logging
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import fedml
import torch
from torch import nn
from torch.utils.data import DataLoader

import fedml_gradcam_ae
from benchmark import data, models
from benchmark.atomic_file import write_json
from benchmark.config import Run
from benchmark.running.training_cache import FOLDER as TRAINED
from benchmark.running.training_cache import Memory, remembering
from benchmark.running.warm_start import warm_start
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.images import preserved_random_state
from fedml_gradcam_ae.recording import pictures
from fedml_gradcam_ae.recording.events import Event, RoundReport, Tested, Triggered, listening
from fedml_gradcam_ae.recording.recorder import FolderRecorder, draw_trigger
from fedml_gradcam_ae.recording.watching import watching

# The packages whose versions are recorded with every run.
PACKAGES = ("fedml", "torch", "torchvision", "numpy", "scikit-learn")

Say = Callable[[str], None]


def simulate(run: Run, out: Path, say: Say, step: Callable[[], object], remember: int = 0) -> None:
    """Run a simulation in its folder under `out`; `result.json`, written last, marks a finished run.

    Args:
        run: what to simulate.
        out: the results folder.
        say: called with a message before slow steps.
        step: called after every tested round.
        remember: bytes of disk for cached local training, see `training_cache.remembering`; 0: no cache.

    Raises:
        Exception: the error that stopped the simulation; its traceback is in `error.txt`.
    """
    folder = out / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.iterdir():  # from an interrupted run
        leftover.unlink()
    write_json(folder / "config.json", {**describe(run), "versions": versions()})
    fedml_gradcam_ae.register()
    set_up_torch(run)
    start = time.perf_counter()
    last: list[RoundReport] = []
    pictured = min(run.federation.rounds, run.attack.get("last_round") or run.federation.rounds)
    _forget_peak()

    def listen(event: Event) -> None:
        if isinstance(event, RoundReport):
            if event.number % run.vote_every == 0 and event.evidence:
                last[:] = [event]
        elif isinstance(event, Tested):
            line = {"round": event.number, **test(event.network, dataset[3], len(data.read(run.data).classes))}
            if event.success is not None:
                line["success"] = event.success
            with (folder / "tests.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            step()
        elif isinstance(event, Triggered) and event.number == pictured:
            draw_trigger(event, folder)

    args = fedml_args(run)
    memory = Memory(out / TRAINED, remember) if remember else None
    try:
        with (
            _log_file(folder / "run.log") as log,
            redirect_stdout(log),  # some of FedML's rules print to the console
            listening(listen, FolderRecorder(folder, pictures=False)),
            watching({name: detector.build() for name, detector in watchers(run).items()}),
            nullcontext() if memory is None else remembering(run, versions(), memory),
        ):
            fedml.init(args)
            dataset, network = data.load(run), create(run)
            started = warm_start(run, network, out, say)
            fedml.FedMLRunner(args, fedml.device.get_device(args), dataset, network).run()
        for report in last:
            pictures.save(pictures.heat_maps(report), folder / f"round-{report.number:03d}-heat-maps.png")
            pictures.save(pictures.errors(report), folder / f"round-{report.number:03d}-errors.png")
    except Exception:
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    result: dict[str, Any] = {
        "seconds": round(time.perf_counter() - start, 2),
        "peak_memory_bytes": _peak(),
        "rounds": run.federation.rounds,
    }
    if started is not None:
        result["warm_start"] = started
    if memory is not None:
        result["remembered_trainings"] = memory.remembered
    write_json(folder / "result.json", result)


def set_up_torch(run: Run) -> None:
    """Set the number of threads that the run asks for; on a GPU, compute in full float32 as on the CPU.

    Args:
        run: the settings.
    """
    torch.set_num_threads(run.threads)
    torch.backends.cudnn.allow_tf32 = False


def describe(run: Run) -> dict[str, Any]:
    """Return the settings of a run as they are written to matrix.json and its config.json.

    Args:
        run: the settings.
    """
    return {"folder": run.folder, "title": run.title, **run.model_dump(), "watch": _named(run.watch)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, by name."""
    found = {name: version(name) for name in PACKAGES}
    return {"fedml_gradcam_ae": fedml_gradcam_ae.__version__, "python": platform.python_version(), **found}


def create(run: Run) -> nn.Module:
    """Build the run's network for the classes and channels of its images.

    Args:
        run: the settings.

    Raises:
        SettingsError: if the images or pretrained weights are not available.
    """
    images = data.read(run.data)
    return models.create(run, classes=len(images.classes), channels=images.train.shape[1])


def test(network: nn.Module, batches: DataLoader[Any], classes: int) -> dict[str, Any]:
    """Compute the accuracy on the test images, overall and per class.

    Args:
        network: the global model; its mode and torch's random state are restored.
        batches: (images, labels), on the CPU.
        classes: the number of classes.

    Returns:
        "accuracy": fraction; "class_accuracy": fractions, None for a class without images.
    """
    right, total = torch.zeros(classes), torch.zeros(classes)
    device = next(network.parameters()).device
    # A DataLoader draws from torch's random state, but testing must not influence the training.
    with evaluating(network), preserved_random_state(), torch.no_grad():
        for images, labels in batches:
            correct = network(images.to(device)).argmax(dim=1).cpu() == labels
            total += torch.bincount(labels, minlength=classes)
            right += torch.bincount(labels[correct], minlength=classes)
    by_class = [float(r / n) if n else None for r, n in zip(right, total, strict=True)]
    return {"accuracy": float(right.sum() / total.sum()), "class_accuracy": by_class}


def fedml_args(run: Run) -> SimpleNamespace:
    """Return the arguments for FedML that correspond to the run: what its YAML file would hold.

    Args:
        run: the settings.
    """
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
        "drop_out": federation.drop_out,
        "worker_momentum": federation.worker_momentum,
        "server_momentum": federation.server_momentum,
        "frequency_of_the_test": 1,
        "enable_wandb": False,
        "using_gpu": run.device == "cuda",  # FedML uses the first GPU
        "rank": 0,
    }
    for side, chosen in (("attack", run.attack), ("defense", run.defense)):
        args |= _section(run, side, chosen)
    return SimpleNamespace(**args)


def watchers(run: Run) -> dict[str, configuration.Requested]:
    """Return the detectors that watch a run, by the name under which the report shows them.

    Args:
        run: the settings.

    Raises:
        SettingsError: if a detector's settings are not valid.
    """
    found = {}
    for entry in _named(run.watch):
        args = fedml_args(run)
        vars(args).update(_section(run, "defense", {key: value for key, value in entry.items() if key != "name"}))
        requested = configuration.requested(configuration.DEFENSE, args)
        assert requested is not None  # every entry names a type
        found[entry["name"]] = requested
    return found


def _section(run: Run, side: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return FedML's keys for an attack or a defense.

    If the type has a setting `seed`, it gets the run's seed unless the configuration sets it.
    """
    name = chosen["type"]
    keys = {key: value for key, value in chosen.items() if key != "type"}
    section = {f"enable_{side}": name != "none", f"{side}_type": name}
    if name == "none":
        return section
    kind = configuration.ATTACK if side == "attack" else configuration.DEFENSE
    ours = kind.ours()
    if name not in ours:  # FedML's own types, with or without prefix, take flat keys
        return {**section, **keys}
    draws = "seed" in ours[name].Settings.model_fields
    return {**section, f"{side}_params": {**({"seed": run.seed} if draws else {}), **keys}}


def _named(watch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries with a distinct `name`: the type, and the keys in which entries of that type differ."""
    named = []
    for entry in watch:
        same = [other for other in watch if other["type"] == entry["type"]]
        differing = [f"{key} {value}" for key, value in entry.items() if any(o.get(key) != value for o in same)]
        named.append({"name": f"{entry['type']} ({', '.join(differing)})" if differing else entry["type"], **entry})
    return named


@contextmanager
def _log_file(path: Path) -> Iterator[TextIO]:
    """Write the plug-in's log to a file in place of the console, where it would interrupt the progress bar."""
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


def _forget_peak() -> None:
    """Reset the peak of memory (Linux only), so that a run is measured without the runs before it."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the peak memory of the process in bytes."""
    if sys.platform == "linux":
        line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
