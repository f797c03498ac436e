"""The section of heat maps: pictures that a few of the runs drew, of maps, errors, and images with a trigger."""

from __future__ import annotations

import base64

from benchmark.measures.results import RunResult
from benchmark.report.markup import Html, section, tag
from benchmark.report.view import View

KINDS = {  # the ends of the pictures' names, in the order of the page
    "trigger-maps.png": "Heat maps of an image without and with the trigger",
    "heat-maps.png": "Heat maps of every client",
    "errors.png": "Reconstruction errors of every client",
}
MOST_RUNS = 4  # pictures are large; the others are in their runs' folders


def gallery(view: View) -> Html | None:
    """Return the section, with the last pictures of one run per attack, of at most `MOST_RUNS` runs.

    Args:
        view: the benchmark.

    Returns:
        The section; None if no run has pictures.
    """
    runs = _chosen(view)
    if not runs:
        return None
    pictured = sum(bool(run.pictures) for run in view.results.judged)
    return section(
        "gallery",
        "Heat maps",
        tag("p", f"{len(runs)} of {pictured} runs with pictures; all of them are in the runs' folders."),
        *(_one(view, run) for run in runs),
    )


def _chosen(view: View) -> list[RunResult]:
    by_attack: dict[str, RunResult] = {}
    for run in view.results.judged:
        if run.pictures:
            by_attack.setdefault(view.observations.titles.attack(run), run)
    return list(by_attack.values())[:MOST_RUNS]


def _one(view: View, run: RunResult) -> Html:
    titles = view.observations.titles
    what = f"{titles.attack(run)}, {titles.defense(run)}, seed {run.seed}"
    last = {path.name.split("-", 2)[-1]: path for path in run.pictures}  # the last round's, since paths are sorted
    images = []
    for name in [name for name in KINDS if name in last]:
        data = base64.b64encode(last[name].read_bytes()).decode()
        images.append(tag("img", src=f"data:image/png;base64,{data}", alt=f"{KINDS[name]}: {what}"))
    return tag("figure", *images, tag("figcaption", what, " (", tag("code", run.folder), ")"), class_="gallery")
