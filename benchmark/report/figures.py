"""Figures, written as PNG and SVG beside the report and embedded into it as SVG."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from benchmark.report.markup import Html, tag

# The folder of figures inside the benchmark's folder.
FOLDER = "figures"
# Okabe and Ito's palette, distinct for the color-blind, without its yellow, which is hard to see on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
# Markers and line styles of series; see `style`.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
# The colors of benign clients and of attackers.
BENIGN, ATTACKER = COLORS[0], COLORS[1]
PALETTE = 128  # number of colors in a PNG file
WIDTH = 4.3  # inches: nearly full size on a phone, three side by side on a desktop screen


def panel(height: float = 3.3) -> tuple[Figure, Axes]:
    """Return an empty figure with one panel.

    Args:
        height: in inches.
    """
    figure, (axes,) = panels(1, height)
    return figure, axes


def panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return an empty figure with panels side by side that share a vertical axis.

    Args:
        number: of panels.
        height: in inches.
    """
    figure = Figure(figsize=(number * WIDTH, height), dpi=150, layout="constrained")
    every = list(figure.subplots(1, number, sharey=True, squeeze=False).flat)
    for axes in every:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, every


def style(position: int) -> dict[str, str]:
    """Return color, marker and line style of the n-th series of a figure.

    After eight series colors and markers repeat with another line style.

    Args:
        position: of the series, from 0.
    """
    return {
        "color": COLORS[position % len(COLORS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": LINES[position // len(COLORS) % len(LINES)],
    }


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Add a legend of all series below the figure.

    Args:
        figure: the figure.
        axes: one of its panels, with labeled series.
        columns: of the legend.
    """
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def publish(figure: Figure, out: Path, name: str, alt: str, caption: str) -> Html:
    """Write a figure to OUT/figures/NAME.png and .svg, and return it as HTML.

    Args:
        figure: the figure.
        out: the benchmark's folder.
        name: turned into a file name by `file_name`.
        alt: the description for screen readers.
        caption: shown below the figure.
    """
    return tag("figure", inline(save(figure, out, name), alt), tag("figcaption", caption))


def save(figure: Figure, out: Path, name: str) -> str:
    """Write a figure to OUT/figures/NAME.png and .svg, and return the SVG.

    Args:
        figure: the figure.
        out: the benchmark's folder.
        name: turned into a file name by `file_name`.
    """
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    name = file_name(name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # Lines and text have few colors: a palette reduces the file to a third.
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    pixels.quantize(PALETTE).save(folder / f"{name}.png", optimize=True)
    buffer = io.StringIO()
    # Text is not drawn as paths: that is smaller and can be searched. The salt makes ids reproducible and distinct.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    (folder / f"{name}.svg").write_text(buffer.getvalue(), encoding="utf-8")
    return buffer.getvalue()


def inline(svg: str, alt: str) -> Html:
    """Return the <svg> element for embedding: without fixed size, and without unused ids, which would not be unique.

    Args:
        svg: the content of an SVG file.
        alt: the description for screen readers.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    start, rest = body.split(">", 1)
    start = re.sub(r' (width|height)="[^"]*"', "", start)
    label = str(tag("x", aria_label=alt)).split(" ", 1)[1].split(">", 1)[0]
    return Html(f'{start} role="img" {label}>{rest}')


def file_name(title: str) -> str:
    """Turn a title into a file name of lower-case letters, digits, points and single hyphens.

    Args:
        title: any text.

    Example:
        >>> file_name("roc resnet18, beta 0.5 (fang)")
        'roc-resnet18-beta-0.5-fang'
    """
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
