"""Figures: drawn once, written as PNG and SVG beside the report, and put into it as SVG."""

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

FOLDER = "figures"
# Okabe and Ito's palette, which the color-blind can tell apart, without its yellow, which is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
BENIGN, ATTACKER = COLORS[0], COLORS[1]
PALETTE = 128  # colors of a PNG
WIDTH = 4.3  # inches: hardly shrunk on a phone, three abreast on a desk


def panel(height: float = 3.3) -> tuple[Figure, Axes]:
    """An empty figure of one panel."""
    figure, (axes,) = panels(1, height)
    return figure, axes


def panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels abreast, with one vertical axis."""
    figure = Figure(figsize=(number * WIDTH, height), dpi=150, layout="constrained")
    every = list(figure.subplots(1, number, sharey=True, squeeze=False).flat)
    for axes in every:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, every


def style(position: int) -> dict[str, str]:
    """Color, marker and line of the so-manieth series; more than eight share colors, not lines."""
    return {
        "color": COLORS[position % len(COLORS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": LINES[position // len(COLORS) % len(LINES)],
    }


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """What every series is called."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def publish(figure: Figure, out: Path, name: str, alt: str, caption: str) -> Html:
    """Write OUT/figures/NAME.png and .svg; the figure for the page, with a description for those who cannot see it."""
    return tag("figure", inline(save(figure, out, name), alt), tag("figcaption", caption))


def save(figure: Figure, out: Path, name: str) -> str:
    """Write OUT/figures/NAME.png and .svg; the SVG as text."""
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    name = file_name(name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # Lines and text have few colors: with a palette, the file is a third as large.
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    pixels.quantize(PALETTE).save(folder / f"{name}.png", optimize=True)
    buffer = io.StringIO()
    # Text stays text: smaller, and found by a search. The salt keeps names apart in one page and the same in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    (folder / f"{name}.svg").write_text(buffer.getvalue(), encoding="utf-8")
    return buffer.getvalue()


def inline(svg: str, alt: str) -> Html:
    """The <svg> element alone, as wide as its place, without ids that nothing refers to (they would not be unique)."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    start, rest = body.split(">", 1)
    start = re.sub(r' (width|height)="[^"]*"', "", start)
    label = str(tag("x", aria_label=alt)).split(" ", 1)[1].split(">", 1)[0]
    return Html(f'{start} role="img" {label}>{rest}')


def file_name(title: str) -> str:
    """Lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
