"""The chart of seconds per round over K: one panel per network, one labeled line per rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from sklearn.isotonic import isotonic_regression

from benchmark.report.figures import panels, style
from benchmark.speed import CLIENTS, NETWORKS
from benchmark.speed.measured import Measured, Times

HEIGHT = 6.4  # inches: enough for the names of all rules above each other
APART = 0.026  # fraction of the height: the minimum distance between two names


def chart(times: Times) -> Figure | None:
    """Draw the chart of median seconds per round over K.

    Args:
        times: the measured times. Rules that are timed at a single K are left out, since they have no line.

    Returns:
        The figure; None if no rule is left.
    """
    rules = sorted({rule for _, rule, _ in times})
    lines = {
        (network, rule): found
        for network in NETWORKS
        for rule in rules
        if len(found := [times[key] for number in CLIENTS if (key := (network, rule, number)) in times]) > 1
    }
    if not lines:
        return None
    shown = [network for network in NETWORKS if any(name == network for name, _ in lines)]
    drawn = sorted({rule for _, rule in lines})
    looks = {rule: style(position) for position, rule in enumerate(drawn)}
    figure, axes = panels(len(shown), height=HEIGHT)
    seconds = [one.median for found in lines.values() for one in found]
    for network, panel in zip(shown, axes, strict=True):
        panel.set_title(NETWORKS[network], fontsize=10)
        _axes(panel, min(seconds) / 1.5, max(seconds) * 1.5)
        own = {rule: found for (name, rule), found in lines.items() if name == network}
        for rule, found in own.items():
            (line,) = panel.plot([one.clients for one in found], [one.median for one in found])
            line.set(markersize=4, linewidth=1.2, **looks[rule])
        _names(panel, {rule: found[-1] for rule, found in own.items()}, {rule: looks[rule]["color"] for rule in own})
    axes[0].set_ylabel("seconds per round, median", fontsize=9)
    return figure


def _axes(panel: Axes, low: float, high: float) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    panel.set_xticks(CLIENTS, [str(number) for number in CLIENTS])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("K, clients of the round", fontsize=9)


def _names(panel: Axes, ends: dict[str, Measured], colors: dict[str, str]) -> None:
    """Write the rules' names beside the ends of their lines, moved apart, each joined to its line."""
    low, high = (math.log(limit) for limit in panel.get_ylim())
    order = sorted(ends, key=lambda rule: ends[rule].median)
    heights = spread([(math.log(ends[rule].median) - low) / (high - low) for rule in order], APART)
    for rule, height in zip(order, heights, strict=True):
        panel.annotate(
            rule,
            xy=(ends[rule].clients, ends[rule].median),
            xytext=(1.12, height),
            textcoords="axes fraction",
            fontsize=8,
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": colors[rule], "linewidth": 0.7, "relpos": (0, 0.5)},
        )


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """Move heights apart by as little as possible (least squares).

    Args:
        wanted: the preferred heights, in ascending order.
        apart: the minimum distance of neighbors.

    Returns:
        The heights in ascending order.

    Example:
        >>> spread([0.0, 0.5, 0.5], apart=0.25)
        [0.0, 0.375, 0.625]
    """
    steps = [apart * position for position in range(len(wanted))]
    moved = isotonic_regression([height - step for height, step in zip(wanted, steps, strict=True)])
    return [float(height) + step for height, step in zip(moved, steps, strict=True)]
