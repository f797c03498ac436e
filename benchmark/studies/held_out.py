"""Does an autoencoder that is trained on what it scores favor attackers? The same heat maps, scored in four ways.

    python -m benchmark.studies.held_out configs/small/in-sample.yaml --out results/in-sample

Every run of the configuration must defend with gradcam_ae, whose heat maps are used as they are. In every round, an
autoencoder with the same settings reconstructs each client's maps after training on

* all: the maps of all clients, as in the paper;
* others: the maps of all other clients;
* others, no other attacker: the maps of all other benign clients (for an attacker, no accomplice's maps are included);
* others, one attacker: as `others`, in a round with a single attacker, after the other attackers were removed.

The choice of training maps uses the truth: this explains detectors and is no detector itself. The study prints and
writes the AUROC of the errors, mean over rounds, and for each way the attackers' mean error as a multiple of the benign
clients'.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

import fedml_gradcam_ae
from benchmark.config import Run, check_device, read_config
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import fit_autoencoder
from fedml_gradcam_ae.defenses.gradcam_ae.settings import GradCAMAESettings
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import reconstruction_error
from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.recording.events import Event, RoundReport, listening

Maps = tuple[Tensor, list[bool]]  # (clients, images, height, width), and whether each client is malicious
# What the autoencoder is trained on; see the top of this file.
WAYS = ("all", "others", "others, no other attacker", "others, one attacker")


def errors(maps: Tensor, train: Tensor, settings: GradCAMAESettings) -> Tensor:
    """Return the reconstruction errors of maps by an autoencoder that was trained on other maps, (clients,).

    Args:
        maps: what to reconstruct, (clients, images, height, width).
        train: what to train on, (clients, images, height, width).
        settings: of the autoencoder and of the error.
    """
    model = fit_autoencoder(
        train.flatten(2).flatten(0, 1),
        hidden=settings.hidden_size,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        output=settings.output_activation,
        generator=seeded_generator(settings.seed),
    )
    flat = maps.flatten(2).flatten(0, 1)
    return reconstruction_error(maps, model(flat).view_as(maps), settings.reconstruction_error)


def scored(maps: Tensor, malicious: list[bool], way: str, settings: GradCAMAESettings) -> tuple[Tensor, list[bool]]:
    """Return the reconstruction errors of one round in one way.

    Args:
        maps: (clients, images, height, width).
        malicious: whether each client is malicious; at least one is.
        way: one of `WAYS`.
        settings: of the autoencoder and of the error.

    Returns:
        The errors of the clients that the way scores, and whether each of these clients is malicious.
    """
    bad = torch.tensor(malicious)
    if way == "all":
        return errors(maps, maps, settings), malicious
    if way == "others, one attacker":
        kept = ~bad
        kept[bad.nonzero()[0]] = True
        return scored(maps[kept], bad[kept].tolist(), "others", settings)
    found = []
    for client in range(len(maps)):
        train = ~bad if way == "others, no other attacker" else torch.ones_like(bad)
        train[client] = False
        found.append(errors(maps[client : client + 1], maps[train], settings))
    return torch.cat(found), malicious


def collect(run: Run, out: Path) -> list[Maps]:
    """Simulate a run and collect the finite heat maps of each round that has attackers.

    Args:
        run: it defends with gradcam_ae.
        out: the results folder.
    """
    from benchmark.running.simulation import simulate

    found: list[Maps] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundReport) and "heat_maps" in event.evidence:
            malicious = {report.client: bool(report.malicious) for report in event.clients}
            maps, judged = event.evidence["heat_maps"], list(event.judged)
            usable = torch.isfinite(maps).flatten(1).all(1)
            truth = [malicious[client] for client, good in zip(judged, usable.tolist(), strict=True) if good]
            if any(truth):
                found.append((maps[usable], truth))

    with listening(listen):
        simulate(run, out, print, lambda: None)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the study; print the table and write held-out.csv.

    Args:
        arguments: of the command line; None: those of the process.

    Returns:
        0 if all went well, 2 for a mistake in the configuration.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmark.studies.held_out", description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args(arguments)
    try:
        config = read_config(options.config)
        check_device(config)
        runs = [run for run in config.runs() if run.attack["type"] != "none"]
        if strangers := {run.defense["type"] for run in runs} - {"gradcam_ae"}:
            raise SettingsError(f"defenses: expected gradcam_ae alone, found {', '.join(sorted(strangers))}.")
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fedml_gradcam_ae.register()
    rows = [",".join(("attack", "partition", "seed", "trained on", "rounds", "AUROC", "attackers' error / benign"))]
    for run in runs:
        settings = GradCAMAESettings(**{key: value for key, value in run.defense.items() if key != "type"})
        rounds = collect(run, options.out)
        torch.set_num_threads(run.threads)
        if not rounds:
            print(f"{run.title}: no attacker has a usable heat map (NaN or infinity).")
            continue
        for way in WAYS:
            area, ratio = _means([scored(*maps, way, settings) for maps in rounds])
            attack = " ".join(f"{key} {value}" for key, value in run.attack.items() if key != "attackers")
            about = (attack.removeprefix("type "), run.data.partition, run.seed, f'"{way}"', len(rounds))
            rows.append(",".join(map(str, (*about, f"{area:.3f}", f"{ratio:.3f}"))))
            print(rows[-1], flush=True)
        (options.out / "held-out.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return 0


def _means(rounds: list[tuple[Tensor, list[bool]]]) -> tuple[float, float]:
    """Return the means over rounds: AUROC, and the attackers' mean error as a multiple of the benign clients'."""

    def over(measure: Callable[[Tensor, list[bool]], float]) -> float:
        return fmean(measure(*found) for found in rounds)

    def ratio(found: Tensor, malicious: list[bool]) -> float:
        bad = torch.tensor(malicious)
        return float(found[bad].mean() / found[~bad].mean())

    return over(lambda found, malicious: float(roc_auc_score(malicious, found.numpy()))), over(ratio)


if __name__ == "__main__":
    sys.exit(main())
