"""Does an autoencoder that is trained on what it scores favor attackers? The same heat maps, scored in four ways.

    python -m benchmark.studies.held_out configs/small/in-sample.yaml --out results/in-sample

Every run of the configuration must defend with gradcam_ae, whose heat maps are taken as they come. In every round one
autoencoder of the same settings reconstructs each client's maps after training on

* all: every client's maps, as the paper has it;
* others: every client's but this one's;
* others, no other attacker: every other benign client's (for an attacker, no accomplice's maps are among them);
* others, one attacker: as `others`, in a round that has but one attacker, by leaving out the other ones altogether.

The truth decides what is trained on, so that this explains detectors and is none. Prints and writes the AUROC of the
errors, mean over rounds, and each way's mean error of attackers as a multiple of the benign clients'.
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

Maps = tuple[Tensor, list[bool]]  # (clients, images, height, width) and who is malicious
WAYS = ("all", "others", "others, no other attacker", "others, one attacker")


def errors(maps: Tensor, train: Tensor, settings: GradCAMAESettings) -> Tensor:
    """(clients,): how badly an autoencoder that was trained on `train` reconstructs `maps`."""
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
    """Errors in one of `WAYS`, and who of those scored is malicious."""
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
    """Simulate the run; the heat maps of each round with attackers."""
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
    """Print and write the table."""
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
    def over(measure: Callable[[Tensor, list[bool]], float]) -> float:
        return fmean(measure(*found) for found in rounds)

    def ratio(found: Tensor, malicious: list[bool]) -> float:
        bad = torch.tensor(malicious)
        return float(found[bad].mean() / found[~bad].mean())

    return over(lambda found, malicious: float(roc_auc_score(malicious, found.numpy()))), over(ratio)


if __name__ == "__main__":
    sys.exit(main())
