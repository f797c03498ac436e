"""A picture of the partition of a benchmark's training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from benchmark.config import Run

LARGEST_DOT = 150.0  # area in square points
COLOR = "#4c72b0"


def partition(run: Run, counts: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the images of each client: a dot per client and class, its area proportional to the number of images.

    Bars beside the dots show the total of each client.

    Args:
        run: the settings, for the title.
        counts: (clients, classes), the numbers of images.
        classes: their names.
    """
    clients, columns = counts.shape
    figure = Figure(figsize=(2.8 + 0.26 * max(columns, 10), 1.8 + 0.24 * clients), dpi=110, layout="constrained")
    dots, bars = figure.subplots(1, 2, sharey=True, width_ratios=[max(columns, 10), 6])
    there = counts.nonzero()
    values = counts[there[:, 0], there[:, 1]]
    most = int(values.max())
    area = LARGEST_DOT / most
    drawn = dots.scatter(there[:, 1], there[:, 0], s=values * area, color=COLOR, linewidths=0)
    dots.set_xticks(range(columns), classes, rotation=90, fontsize=8)
    dots.set_yticks(range(clients), [str(client) for client in range(clients)], fontsize=8)
    dots.set_xlim(-0.7, columns - 0.3)
    dots.set_ylim(clients - 0.3, -0.7)
    dots.set_xlabel("class")
    dots.set_ylabel("client")
    dots.set_axisbelow(True)
    dots.grid(alpha=0.25)
    bars.barh(range(clients), counts.sum(dim=1), height=0.7, color=COLOR)
    bars.set_xlabel("images")
    bars.tick_params(axis="y", labelleft=False, left=False)
    bars.spines[["top", "right"]].set_visible(False)
    handles, labels = drawn.legend_elements("sizes", num=4, func=lambda size: size / area, color=COLOR)
    figure.legend(
        handles, labels, title="images", loc="outside right upper", fontsize=8, title_fontsize=8, frameon=False
    )
    figure.suptitle(
        f"{_name(run)}: {int(counts.sum()):,} training images, {_manner(run)}, seed {run.seed}", fontsize=10
    )
    return figure


def _name(run: Run) -> str:
    """Return the name of the data set; for `folder`, the name of that folder."""
    return Path(run.data.root).name if run.data.name == "folder" and run.data.root else run.data.name


def _manner(run: Run) -> str:
    data = run.data
    if data.partition == "dirichlet":
        return f"dirichlet, beta {data.beta:g}"
    if data.partition == "shards":
        return f"{data.shards_per_client} shards per client"
    return "iid" if data.unequal is None else f"iid, unequal {data.unequal:g}"
