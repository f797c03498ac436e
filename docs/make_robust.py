"""The tables of docs/robust.md, from docs/results/robust, and its picture.

    python docs/make_robust.py                             write the tables anew
    PYTHONPATH=. python docs/make_robust.py REPLAY.npz     draw the picture as well, of a replay set's first round

The files there are what `python -m benchmark.replay.judge ... --ablate --out FILE` wrote; acting.csv the lines about
accuracy, recall and FPR that `python -m benchmark run configs/small/robust.yaml` wrote into summary.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import make_reproduction
import numpy as np
from make_reproduction import NONE, Row, markdown, read
from matplotlib.figure import Figure

from fedml_gradcam_ae import pictures

if TYPE_CHECKING:
    from benchmark.replay.file import Replay

HERE = Path(__file__).parent
PAGE = HERE / "robust.md"


def attacks(name: str) -> str:
    """AUROC, recall, and recall of the vote under each attack, for each partition and share of attackers."""
    rows = [row for row in read("robust", name) if row["variant"] == "robust" and row["attack"] != "none"]
    columns = list(dict.fromkeys((row["partition"], row["attackers"]) for row in rows))
    cells = {(row["attack"], row["partition"], row["attackers"]): row for row in rows}
    head = ["AUROC / recall / recall of the vote", *(f"{partition}, {share}" for partition, share in columns)]
    body = [
        [f"`{attack}`", *(_three(cells.get((attack, *column))) for column in columns)]
        for attack in dict.fromkeys(row["attack"] for row in rows)
    ]
    return markdown(head, body)


def quiet(name: str) -> str:
    """False alarms while nobody attacks, of every variant."""
    rows = [row for row in read("robust", name) if row["attack"] == "none"]
    partitions = list(dict.fromkeys(row["partition"] for row in rows))
    head = [
        "nobody attacks",
        *(f"{partition}, {figure}" for partition in partitions for figure in ("FPR", "FPR per vote")),
    ]
    body = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        found = {row["partition"]: row for row in rows if row["variant"] == variant}
        body.append([variant, *(_digits(found[p][f], 3) for p in partitions for f in ("FPR", "FPR per vote"))])
    return markdown(head, body)


def ablation(name: str) -> str:
    """Means over all attacks of each variant's AUROC and recall."""
    rows = [row for row in read("robust", name) if row["attack"] != "none"]
    columns = list(dict.fromkeys((row["partition"], row["attackers"]) for row in rows))
    head = ["mean AUROC / recall over all attacks", *(f"{partition}, {share}" for partition, share in columns)]
    body = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        line = [variant]
        for column in columns:
            found = [
                row for row in rows if row["variant"] == variant and (row["partition"], row["attackers"]) == column
            ]
            line.append(
                " / ".join(f"{fmean(float(row[figure]) for row in found):.2f}" for figure in ("AUROC", "recall"))
            )
        body.append(line)
    return markdown(head, body)


def acting(name: str) -> str:
    """Accuracy after the last round, and recall and FPR of the votes, where defenses acted in FedML's simulator."""
    cells = {
        (row["setting"], row["attack"], row["defense"], row["metric"]): row["mean"] for row in read("robust", name)
    }
    runs = dict.fromkeys((setting, attack, defense) for setting, attack, defense, _ in cells)
    body = [
        [
            run[0],
            f"`{run[1]}`",
            run[2],
            *(_digits(cells.get((*run, figure), ""), 3) for figure in ("accuracy", "recall", "FPR")),
        ]
        for run in runs
    ]
    return markdown(["setting", "attack", "defense", "accuracy", "recall of the votes", "FPR of the votes"], body)


TABLES = {"acting": acting, "attacks": attacks, "quiet": quiet, "ablation": ablation}


def _three(row: Row | None) -> str:
    return NONE if row is None else " / ".join(_digits(row[f], 2) for f in ("AUROC", "recall", "recall per vote"))


def _digits(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}" if text else NONE


def page(text: str) -> str:
    """The page with its tables written anew."""
    return make_reproduction.page(text, TABLES)


def picture(replay: Replay, attack: str = "alie, jitter 0.3", view: str = "64/layer3") -> Figure:
    """What six honest clients and three attackers change in the label's heat map of four images.

    Red is more evidence for the label than the global model finds at that place, blue is less; one scale per image.
    """
    case = max(number for number, found in enumerate(replay.about["cases"]) if found["name"] == attack)
    arrays = replay.rounds[0]
    rows, bad = arrays["cases"][case], arrays["malicious"][case]
    honest, attackers = np.flatnonzero(~bad)[:6], np.flatnonzero(bad)[:3]
    shown = [*honest, *attackers]
    changes = arrays[view][rows[shown]][:, :4] - arrays[view][0][:4]
    figure = Figure(figsize=(8, 4.2), dpi=110)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(4, len(shown))
    for column, client in enumerate(shown):
        grid[0, column].set_title(f"client {client}", fontsize=8, color=pictures.ATTACKER if bad[client] else "black")
        for row in range(4):
            limit = np.abs(changes[:, row]).max()
            axes = grid[row, column]
            axes.imshow(changes[column, row], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(color=pictures.ATTACKER if bad[client] else "#999999", linewidth=2.5 if bad[client] else 0.5)
    figure.suptitle(f"Change of four images' heat maps by nine clients; framed: attackers ({attack})", fontsize=10)
    return figure


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        from benchmark.replay.file import load

        pictures.save(picture(load(Path(argument))), HERE / "figures" / "robust-maps.png")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
