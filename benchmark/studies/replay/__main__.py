"""Make a replay set; see benchmark/replay/__init__.py.

    python -m benchmark.studies.replay configs/replay/develop.yaml --out results/replay

Attacks are staged with each share of attackers in turn; the same clients attack in every round of a federation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from benchmark.config import Device, Run, check_device, read_config
from benchmark.studies.replay.views import View
from fedml_gradcam_ae.contract.settings import AttackSettings, SettingsError

# The fractions of attackers that are staged by default.
SHARES = (0.1, 0.2, 0.3, 0.4)


def main(arguments: list[str] | None = None) -> int:
    """Simulate every federation whose file is missing.

    Args:
        arguments: of the command line; None: those of the process.

    Returns:
        0 if all went well, 2 for a mistake in the configuration or in the views.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmark.studies.replay", description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--views", nargs="+", required=True, help="SIZE:LAYER,LAYER such as 64:layer3,layer4")
    parser.add_argument("--images", type=int, default=24, help="probe images a round")
    parser.add_argument("--reference-images", type=int, default=100, help="test images of the server's own training")
    parser.add_argument("--attackers", nargs="+", type=float, default=SHARES, help="shares of the clients")
    parser.add_argument("--no-grams", action="store_true", help="no inner products, which `judge --ablate` needs")
    parser.add_argument("--data", nargs="+", help="only the federations on these data sets")
    parser.add_argument("--device", choices=get_args(Device), help="instead of the configuration's")
    options = parser.parse_args(arguments)
    try:
        views = [View.parse(text) for text in options.views]
        config = read_config(options.config, options.device)
        check_device(config)
    except (SettingsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    runs = config.runs()
    if options.data:
        runs = [run for run in runs if run.data.name in options.data]
    for quiet in (run for run in runs if run.attack["type"] == "none"):
        same = {"data", "model", "federation", "warm_start", "seed"}
        attacks = [run.attack for run in runs if run.model_dump(include=same) == quiet.model_dump(include=same)]
        record(quiet, attacks, views, options)
    return 0


def record(run: Run, attacks: Sequence[dict[str, Any]], views: Sequence[View], options: argparse.Namespace) -> None:
    """Simulate one federation and write its file, unless it exists.

    Args:
        run: the federation without attack.
        attacks: the attacks to stage, as in the configuration.
        views: the heat maps to compute.
        options: of the command line.
    """
    import fedml_gradcam_ae
    from benchmark import data
    from benchmark.running.simulation import fedml_args, simulate, versions
    from benchmark.studies.replay.file import save
    from benchmark.studies.replay.recorder import Recorder, Reference, Staged
    from fedml_gradcam_ae.hooks import configuration
    from fedml_gradcam_ae.recording.watching import watching

    path = options.out / f"{run.folder.removeprefix('none--none--')}.npz"
    if path.exists():
        return
    fedml_gradcam_ae.register()
    cases, named = [Staged("none", None, None)], [{"name": "none", "attackers": 0.0}]
    for attack in attacks:
        if attack["type"] == "none":
            continue
        keys = [f"{key} {value}" for key, value in attack.items() if key != "type"]
        name = ", ".join([attack["type"], *keys])
        for share in options.attackers:
            staged = run.model_copy(update={"attack": {**attack, "attackers": share}})
            requested = configuration.requested(configuration.ATTACK, fedml_args(staged))
            assert requested is not None
            assert isinstance(requested.settings, AttackSettings)
            cases.append(Staged(name, requested.build(), requested.settings))
            named.append({"name": name, "attackers": share})
    federation = run.federation
    training = {
        "epochs": federation.local_epochs,
        "learning_rate": federation.learning_rate,
        "optimizer": federation.optimizer,
        "weight_decay": federation.weight_decay,
        "batch_size": federation.batch_size,
    }
    local = data.load(run)[5]
    reference = Reference(options.reference_images, training)
    recorder = Recorder(cases, views, options.images, run.seed, reference, local, grams=not options.no_grams)
    start = time.perf_counter()

    def step() -> None:
        seconds = time.perf_counter() - start
        done = f"{path.name}: round {len(recorder.rounds)} of {federation.rounds}, {seconds:.0f} s"
        print(done, file=sys.stderr, flush=True)  # standard output goes to the run's log, since FedML's rules print

    with watching({"replay": recorder}):
        simulate(run, options.out, print, step)
    about = {**run.model_dump(exclude={"attack", "defense", "watch"}), "cases": named, "versions": versions()}
    save(path, about, recorder.rounds)


if __name__ == "__main__":
    sys.exit(main())
