"""Pictures of a round: every client's heat map (the paper's Fig. 9), score (Fig. 8), and maps with a trigger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from fedml_gradcam_ae.heatmaps import min_max
from fedml_gradcam_ae.recording.events import ClientReport, RoundReport
from fedml_gradcam_ae.recording.trigger_maps import TriggerMaps

ATTACKER, LEFT_OUT, BENIGN = "#d62728", "#444444", "#7f9fbf"  # Colors of the bars, frames and hatches.
COLUMNS = 10  # Maximum number of clients in one row of the heat maps.


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, without pyplot, which keeps process-wide state.

    Args:
        figure: the figure.
        path: the file; its folder is made if needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]


def heat_maps(report: RoundReport) -> Figure:
    """Draw each judged client's first heat map above its reconstruction by the autoencoder.

    Attackers have a red frame. The titles of excluded clients say "left out". All maps share one color scale, from the
    smallest to the largest finite heat of the round.

    Args:
        report: a report whose `evidence` holds `heat_maps` and `reconstructions`, both of shape
            (judged clients, images, height, width).
    """
    maps = report.evidence["heat_maps"][:, 0].numpy()
    reconstructions = report.evidence["reconstructions"][:, 0].numpy()
    by_client = {client.client: client for client in report.clients}
    clients = [by_client[client] for client in report.judged]
    columns = min(COLUMNS, len(clients))
    rows = math.ceil(len(clients) / columns)
    finite = maps[np.isfinite(maps)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)

    figure = Figure(figsize=(1.05 * columns + 0.9, 2.5 * rows + 0.8), dpi=110)
    figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.03, hspace=0.01, wspace=0.0)
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    image = None
    for position, client in enumerate(clients):
        row, column = divmod(position, columns)
        for offset, picture in ((0, maps[position]), (1, reconstructions[position])):
            axes = grid[2 * row + offset, column]
            image = axes.imshow(picture, cmap="inferno", vmin=low, vmax=high)
            if client.malicious:
                _frame(axes)
        grid[2 * row, column].set_title(_title(client), fontsize=8, color=ATTACKER if client.malicious else "black")
    figure.suptitle(
        f"Round {report.number}: each client's heat map as the autoencoder gets it (above), its reconstruction (below)",
        fontsize=10,
    )
    if image is not None:
        figure.colorbar(image, ax=grid, shrink=0.6, label="heat")
    if any(client.malicious for client in clients):
        frame = Patch(fill=False, edgecolor=ATTACKER, linewidth=2, label="attacker")
        figure.legend(handles=[frame], loc="outside lower center", frameon=False)
    return figure


def _frame(axes: Axes) -> None:
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=ATTACKER, linewidth=4, clip_on=False)
    )


def _title(client: ClientReport) -> str:
    return f"client {client.client}" + ("\nleft out" if client.excluded else "")


def errors(report: RoundReport) -> Figure:
    """Draw the score of each client as a bar, with the threshold as a line.

    Attackers are red, excluded clients hatched. Clients without a finite score are left out.

    Args:
        report: the report of a round.
    """
    clients = [client for client in report.clients if client.score is not None and math.isfinite(client.score)]
    figure = Figure(figsize=(max(6.0, 0.36 * len(clients) + 1.5), 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(
        range(len(clients)),
        [client.score or 0.0 for client in clients],
        color=[ATTACKER if client.malicious else BENIGN for client in clients],
    )
    for bar, client in zip(bars, clients, strict=True):
        if client.excluded:
            bar.set_hatch("///")
            bar.set_edgecolor(LEFT_OUT)
    handles: list[Patch | Line2D] = [
        Patch(facecolor=BENIGN, label="benign"),
        Patch(facecolor=ATTACKER, label="attacker"),
    ]
    handles.append(Patch(facecolor="white", edgecolor=LEFT_OUT, hatch="///", label="left out"))
    if report.threshold is not None:
        axes.axhline(report.threshold, color="black", linestyle="--", linewidth=1)
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label="threshold"))
    axes.set_xticks(range(len(clients)), [str(client.client) for client in clients], fontsize=8)
    axes.set_xlabel("client")
    axes.set_ylabel("score")
    axes.set_title(f"Round {report.number}: score of each client", fontsize=10)
    axes.legend(handles=handles, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, frameon=False)
    return figure


def trigger(found: TriggerMaps) -> Figure:
    """Draw an image without (above) and with the trigger of a backdoor (below), and each model's heat map over it.

    The title of a map is the class that the model answers with; it is red if that is the class that the attackers want
    for an image with the trigger. Attackers have a red frame. Each map has its own color scale.

    Args:
        found: the image and the maps.
    """
    columns = 1 + len(found.models)
    figure = Figure(figsize=(1.25 * columns + 0.5, 4.0), dpi=110)
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03, hspace=0.02, wspace=0.02)
    grid = figure.subplots(2, columns, squeeze=False)
    for row in range(2):
        for axes in grid[row]:
            axes.set_xticks([])
            axes.set_yticks([])
        picture = _as_picture(found.images, row)
        height, width = picture.shape[:2]
        grid[row, 0].imshow(picture, cmap="gray", vmin=0, vmax=1)
        grid[row, 0].set_ylabel(("without trigger", "with trigger")[row], fontsize=9)
        for axes, model in zip(grid[row, 1:], found.models, strict=True):
            heat = min_max(model.maps[row]).nan_to_num(0.0).numpy()
            axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=1)
            axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
            wanted = row == 1 and model.classes[row] == found.target
            axes.set_title(f"class {model.classes[row]}", fontsize=8, color=ATTACKER if wanted else "black")
            if model.malicious:
                _frame(axes)
    grid[0, 0].set_title(f"class {found.label}", fontsize=8)
    for axes, model in zip(grid[1, 1:], found.models, strict=True):
        axes.set_xlabel(model.name, fontsize=8, color=ATTACKER if model.malicious else "black")
    figure.suptitle(
        f"Round {found.number}: what each model's answer comes from; the attackers want class {found.target} with the "
        "trigger",
        fontsize=10,
    )
    return figure


def _as_picture(images: Tensor, position: int) -> np.ndarray[Any, Any]:
    """Return one of two images as (height, width, 3), scaled to 0..1 by the range of both."""
    low, high = float(images.min()), float(images.max())
    image = (images[position].float() - low) / ((high - low) or 1.0)
    colors = image if len(image) == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return colors.permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Curve:
    """Test accuracy of one run over its rounds.

    Attributes:
        defense: the name of the defense.
        attack: the name of the attack.
        values: the accuracy after each round, from round 1, as a fraction.
    """

    defense: str
    attack: str
    values: Sequence[float]


def accuracy(curves: Sequence[Curve], title: str) -> Figure:
    """Draw test accuracy over rounds: one panel per attack, one color per defense.

    Args:
        curves: the runs; at least one.
        title: the title of the figure.
    """
    attacks = list(dict.fromkeys(curve.attack for curve in curves))
    defenses = list(dict.fromkeys(curve.defense for curve in curves))
    columns = min(len(attacks), 4)
    rows = math.ceil(len(attacks) / columns)
    figure = Figure(figsize=(1.0 + 4.2 * columns, 0.6 + 3.4 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for unused in panels[len(attacks) :]:
        unused.set_axis_off()
    for panel, attack in zip(panels, attacks, strict=False):
        for curve in (curve for curve in curves if curve.attack == attack):
            index = defenses.index(curve.defense)
            panel.plot(
                range(1, len(curve.values) + 1),
                curve.values,
                label=curve.defense,
                color=f"C{index}",
                # Earlier curves are wider, so that curves that coincide can all be seen.
                linewidth=5 - 3.5 * index / max(1, len(defenses) - 1),
            )
        panel.set_title(attack, fontsize=10)
        panel.set_xlabel("round")
        panel.grid(alpha=0.3)
    for panel in grid[:, 0]:
        panel.set_ylabel("test accuracy (fraction)")
    panels[0].set_ylim(0, 1.02)
    figure.suptitle(title, fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(defenses), frameon=False)
    return figure
