"""How well the robust profile's evidence finds attackers in a replay set, whole and with an ingredient taken out.

    python -m benchmark.studies.replay.judge results/replay/*.npz --out results/published/robust.csv
    python -m benchmark.studies.replay.judge results/replay/*.npz --ablate
    python -m benchmark.studies.replay.judge results/replay/*.npz --federations judged.csv   # a line for each
    python -m benchmark.studies.replay.judge results/more/*.npz judged.csv   # rows of a CSV file count as well

The probe images are the profile's: its first images in the replay's largest view, and in the smallest view for
directions. The printed values are means over federations, with 95 % intervals over seeds, of means over rounds: AUROC
of the scores, recall and false-positive rate of the flags of a round, and recall and false-positive rate of each vote
(two flags in three rounds).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from benchmark.measures.intervals import interval
from benchmark.measures.metrics import of_one_decision, of_one_ranking
from benchmark.studies.replay.file import Arrays, Replay, load
from fedml_gradcam_ae.contract.updates import squared_distances
from fedml_gradcam_ae.defenses.gradcam_ae.copies import Copies, Means, copy_scores
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.gradcam_ae.evidence import Evidence, kinds_of
from fedml_gradcam_ae.defenses.gradcam_ae.map_errors import MapErrors
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Maps, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.running_means import RunningMeans
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import ratios_of
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import flag, voted_out
from fedml_gradcam_ae.networks.batchnorm import Statistics

# The metrics of a federation, in the order of their columns.
FIGURES = ("AUROC", "recall", "FPR", "recall per vote", "FPR per vote")
# The columns that identify a row of the summary.
CASE = ("data", "model", "partition", "attack", "attackers", "variant")
COPIES, ERRORS, STATISTICS = Copies.name, MapErrors.name, RunningMeans.name
MEANS = Means.name
PARTS = (COPIES, ERRORS, STATISTICS, MEANS)  # the kinds of evidence that replays keep the figures of
Flags = list[bool]
Row = dict[str, Any]
Parts = Mapping[str, Tensor]


class PlainDeviation(MapErrors):
    """Map errors without an autoencoder: the error is the deviation itself."""

    @override
    def reconstruct(self, deviations: Tensor, reference: Tensor, near: Tensor, number: int) -> Tensor:
        return torch.zeros_like(deviations)


class EachAlone(MapErrors):
    """Map errors by autoencoders that hold out each client alone, so that they also learn from clients near to it."""

    @override
    def reconstruct(self, deviations: Tensor, reference: Tensor, near: Tensor, number: int) -> Tensor:
        return super().reconstruct(deviations, reference, torch.zeros_like(near), number)


@dataclass(frozen=True)
class Variant:
    """The robust profile with changes.

    Attributes:
        errors: the kind of evidence that stands in place of `MapErrors`.
        settings: the settings of the defense that are changed.
        parts: the kinds of evidence that count.
        of_updates: whether to look for copies among the updates, in place of all evidence from heat maps.
    """

    errors: type[MapErrors] = MapErrors
    settings: Mapping[str, Any] | None = None
    parts: Sequence[str] = PARTS
    of_updates: bool = False


# Settings by which all clients are in the reference set: a copy ratio near 0 finds no copies.
ALL_CLIENTS = {"copy_ratio": 1e-12, "mean_ratio": 0.0}
# The profile, and with `--ablate` also the profile with changes, by name.
VARIANTS = {
    "robust": Variant(),
    "copies alone": Variant(parts=[COPIES]),
    "copies alone, of updates": Variant(of_updates=True, parts=[COPIES]),
    "means alone": Variant(parts=[MEANS]),
    "errors alone": Variant(parts=[ERRORS]),
    "statistics alone": Variant(parts=[STATISTICS]),
    "without copies": Variant(settings={"copy_ratio": 1e-12}),
    "without means": Variant(settings={"mean_ratio": 0.0}),
    "without copies and means": Variant(settings=ALL_CLIENTS),
    "without errors": Variant(parts=[COPIES, MEANS, STATISTICS]),
    "without statistics": Variant(parts=[COPIES, MEANS, ERRORS]),
    "errors, copies not taken out": Variant(settings=ALL_CLIENTS, parts=[ERRORS]),
    "errors, relations learned from": Variant(EachAlone, ALL_CLIENTS, [ERRORS]),
    "deviation instead of errors": Variant(PlainDeviation, parts=[ERRORS]),
    "deviation, copies not taken out": Variant(PlainDeviation, ALL_CLIENTS, [ERRORS]),
}


def judged(
    replay: Replay, case: int, variants: Mapping[str, Variant]
) -> Iterator[tuple[str, list[tuple[list[float], Flags]]]]:
    """Judge one case of a replay set by each variant.

    Args:
        replay: the recorded federation.
        case: the position of the case.
        variants: by name; a variant of updates is skipped if the file has no inner products.

    Yields:
        The name of the variant and, for each round, the scores (infinite for unusable maps) and the truth, both
        (clients,).
    """
    truth = [arrays["malicious"][case].tolist() for arrays in replay.rounds]
    known: list[tuple[Variant, list[Parts]]] = []
    for name, variant in variants.items():
        if variant.of_updates and "grams" not in replay.rounds[0]:
            continue
        look = replace(variant, parts=())  # variants that differ only in the parts share their evidence
        rounds = next((found for seen, found in known if seen == look), None)
        if rounds is None:
            rounds = list(_evidence(replay, case, variant))
            known.append((look, rounds))
        yield name, [(_scores(parts, variant.parts), bad) for parts, bad in zip(rounds, truth, strict=True)]


def _evidence(replay: Replay, case: int, variant: Variant) -> Iterator[Parts]:
    """Yield the scores of each round by kind of evidence, (clients,)."""
    settings = GradCAMAE.Settings(**{"profile": "robust", **(variant.settings or {})})
    evidence = Evidence(kinds_of(settings, variant.errors))
    for number, arrays in enumerate(replay.rounds, 1):
        if variant.of_updates:
            yield {COPIES: _copies_of_updates(arrays["grams"][case], settings.copy_ratio)}
            continue
        views = sorted((name for name in arrays if name.endswith("/classes")), key=lambda name: int(name.split("/")[0]))
        rows = arrays["cases"][case]
        maps = _maps(arrays, views[-1], rows, settings.probe_images)
        statistics = _statistics(arrays, rows) if "stored" in arrays else None
        usable = maps.finite
        clients = usable.nonzero()[:, 0].tolist()
        found: Parts = dict.fromkeys(PARTS, torch.zeros(len(clients)))
        if clients:
            observed = Observed(
                number,
                clients,
                arrays["samples"][clients].tolist(),
                maps.only(usable),
                None if statistics is None else statistics.only(usable),
            )
            found = {**found, **evidence.judge(observed).parts}
        yield {part: _spread(scores, usable) for part, scores in found.items()}


def _scores(parts: Parts, counted: Sequence[str]) -> list[float]:
    """Return the maximum of the parts that count; 0 if none of them was computed."""
    scores = torch.stack([parts[part] for part in counted]).max(dim=0).values
    found: list[float] = scores.float().tolist()
    return found


def _spread(scores: Tensor, usable: Tensor) -> Tensor:
    """Return the scores of usable clients in an array of all clients, infinite for the others, (clients,)."""
    spread = torch.full((len(usable),), torch.inf, dtype=scores.dtype)
    spread[usable] = scores
    return spread


def figures(rounds: Sequence[tuple[list[float], Flags]], every: int = 3, needed: int = 2) -> dict[str, float]:
    """Return each metric of `FIGURES` that is defined, averaged over rounds or votes.

    Args:
        rounds: scores and truth of each round, both (clients,).
        every: rounds divisible by this number are votes.
        needed: the number of flags since the last vote that excludes a client.
    """
    found: dict[str, list[float | None]] = {name: [] for name in FIGURES}
    flagged: dict[int, list[int]] = {}
    for number, (scores, truth) in enumerate(rounds, 1):
        flags = flag(scores, 1)
        flagged[number] = [position for position, bad in enumerate(flags) if bad]
        found["AUROC"].append(of_one_ranking(truth, scores)["AUROC"] if any(truth) else None)
        decisions = [("recall", "FPR", flags)]
        if number % every == 0:
            out = voted_out(flagged, number, every, needed)
            decisions.append(("recall per vote", "FPR per vote", [position in out for position in range(len(truth))]))
        for recall, false_alarms, decided in decisions:
            values = of_one_decision(truth, decided)
            found[recall].append(values["recall"])
            found[false_alarms].append(values["FPR"])
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: fmean(values) for name, values in known.items() if values}


def _copies_of_updates(gram: np.ndarray[Any, Any], copy_ratio: float) -> Tensor:
    """Return the copy scores of `Copies`, computed from distances of updates; infinite where a length overflows.

    Args:
        gram: inner products of the updates, (clients, clients).
        copy_ratio: of the profile.
    """
    usable = np.isfinite(gram).all(axis=1) & np.isfinite(gram.diagonal())
    scores = torch.zeros(int(usable.sum()), dtype=torch.float64)
    if len(scores) >= FEWEST:
        distances = squared_distances(torch.from_numpy(gram[np.ix_(usable, usable)])).sqrt()
        scores = copy_scores(ratios_of(distances).min(dim=1).values, copy_ratio)
    return _spread(scores, torch.from_numpy(usable))


def _maps(arrays: Arrays, view: str, rows: np.ndarray[Any, Any], images: int) -> Maps:
    maps = torch.from_numpy(arrays[view][:, :images])
    return Maps(maps[torch.from_numpy(rows.astype(int))], maps[0])


def _statistics(arrays: Arrays, rows: np.ndarray[Any, Any]) -> Statistics:
    stored, measured = (torch.from_numpy(arrays[name])[rows.astype(int)] for name in ("stored", "measured"))
    return Statistics(stored, measured, torch.from_numpy(arrays["layers"]))


def by_federation(files: Sequence[Path], variants: Mapping[str, Variant]) -> list[Row]:
    """Judge replay sets, and read rows that were judged before.

    Args:
        files: replay sets, and `.csv` files that hold such rows.
        variants: what to judge the replay sets by.

    Returns:
        One row per federation, attack, fraction of attackers and variant. A row that two files have counts once.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for path in files:
        for row in _read(path) if path.suffix == ".csv" else _judge(load(path), variants):
            found.setdefault(tuple(row[column] for column in (*CASE, "seed")), row)
        print(f"{path.name} judged", file=sys.stderr, flush=True)
    return list(found.values())


def _judge(replay: Replay, variants: Mapping[str, Variant]) -> Iterator[Row]:
    data = replay.about["data"]
    for case, attack in enumerate(replay.about["cases"]):
        for name, rounds in judged(replay, case, variants):
            yield {
                "data": data["name"],
                "model": replay.about["model"]["name"],
                "partition": data["partition"],
                "attack": attack["name"],
                "attackers": attack["attackers"],
                "variant": name,
                "seed": replay.about["seed"],
                **figures(rounds),
            }


def _read(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = {figure: float(row[figure]) for figure in ("attackers", *FIGURES) if row.get(figure)}
            yield {**{column: row[column] for column in CASE}, "seed": int(row["seed"]), **numbers}


def summary(federations: Sequence[Row]) -> list[Row]:
    """Average over federations.

    Args:
        federations: rows of `by_federation`.

    Returns:
        One row per setting, attack, fraction of attackers and variant: means over federations and their intervals.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for federation in federations:
        groups.setdefault(tuple(federation[column] for column in CASE), []).append(federation)
    rows = []
    for key, same in groups.items():
        row: Row = {**dict(zip(CASE, key, strict=True)), "federations": len(same)}
        for figure in FIGURES:
            values = [federation[figure] for federation in same if figure in federation]
            if values:
                low, high = interval(values)
                row |= {figure: fmean(values), f"{figure}, low": low, f"{figure}, high": high}
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Judge replay sets, print the table, and write CSV files if asked to.

    Args:
        arguments: of the command line; None: those of the process.

    Returns:
        0 if all went well, 2 if a file does not exist.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.studies.replay.judge", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "files", type=Path, nargs="+", help="of python -m benchmark.studies.replay, or of --federations"
    )
    parser.add_argument("--ablate", action="store_true", help="also with each ingredient taken out")
    parser.add_argument("--out", type=Path, help="a CSV file of means and intervals")
    parser.add_argument("--federations", type=Path, help="a CSV file of each federation's figures")
    options = parser.parse_args(arguments)
    if missing := [str(path) for path in options.files if not path.is_file()]:
        print(f"error: no such file: {', '.join(missing)}", file=sys.stderr)
        return 2
    federations = by_federation(options.files, VARIANTS if options.ablate else {"robust": VARIANTS["robust"]})
    rows = summary(federations)
    settings = Counter((row["data"], row["model"], row["partition"]) for row in rows)
    for setting in settings:
        print(f"\n{', '.join(setting)}")
        print(f"{'attack':44}{'share':>6}  {'variant':34}" + "".join(f"{figure:>18}" for figure in FIGURES))
        for row in rows:
            if (row["data"], row["model"], row["partition"]) == setting:
                cells = "".join(f"{_cell(row, figure):>18}" for figure in FIGURES)
                print(f"{row['attack']:44}{row['attackers']:>6}  {row['variant']:34}{cells}")
    if options.out is not None:
        _write(options.out, [{c: round(v, 4) if isinstance(v, float) else v for c, v in row.items()} for row in rows])
    if options.federations is not None:
        _write(options.federations, federations)
    return 0


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def _cell(row: Mapping[str, Any], figure: str) -> str:
    if figure not in row:
        return "-"
    low, high = row[f"{figure}, low"], row[f"{figure}, high"]
    return f"{row[figure]:.2f}" if low is None else f"{row[figure]:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
