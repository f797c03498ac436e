"""The section of score distributions: attackers and benign clients under each detector, one figure per attack."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmark.measures.judgments import Judgment
from benchmark.report.detectors import Shown, panels, shown
from benchmark.report.figures import ATTACKER, BENIGN, WIDTH, publish
from benchmark.report.markup import Html, section, tag
from benchmark.report.view import View

REACH = 10  # robust z-scores beyond this are counted in the outermost bars
MAD_TO_STD = 1.4826  # for normal data; as in gradcam_ae/suspicion.py, which is not imported since that loads torch


def scores(view: View) -> Html | None:
    """Return the section; None if no detector wrote scores under any attack.

    Args:
        view: the benchmark.
    """

    def panel(setting: str, attack: str) -> Html | None:
        detectors = _with_scores(shown(view, setting, attack))
        return _figure(view, setting, attack, detectors) if detectors else None

    parts = panels(view, panel)
    if not parts:
        return None
    return section(
        "scores",
        "Scores of attackers and benign clients",
        tag(
            "p",
            "Scores of each round minus the round's median, in units of the scaled median absolute deviation, so that "
            f"detectors can be compared. Scores beyond \N{PLUS-MINUS SIGN}{REACH}, and unusable uploads, are in the "
            "outermost bars. Each color adds up to one. Attackers to the right of the benign clients can be "
            "detected; attackers to the left have lower scores than benign clients.",
        ),
        *parts,
    )


def normalized(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the robust z-scores of one round, clipped to [-REACH, REACH].

    If the median absolute deviation is 0 or not finite, the standard deviation of the finite scores replaces it. Scores
    equal to the median become 0. NaN stays NaN.

    Args:
        scores: (clients,), may be infinite or NaN.
    """
    known = scores[~np.isnan(scores)]
    if not known.size:
        return scores
    middle = np.median(known)
    finite = known[np.isfinite(known)]
    spread = MAD_TO_STD * np.median(np.abs(known - middle)) if np.isfinite(middle) else 0.0
    if not np.isfinite(spread) or spread == 0:
        spread = finite.std() if finite.size else 0.0
    away = np.zeros_like(scores)
    different = scores != middle
    with np.errstate(divide="ignore", invalid="ignore"):
        away[different] = (scores[different] - middle) / spread
    return np.clip(away, -REACH, REACH)


def _with_scores(detectors: list[Shown]) -> list[tuple[Shown, NDArray[np.float64], NDArray[np.bool_]]]:
    """Return each detector that has scores, with its normalized scores and whether each is an attacker's."""
    found = []
    for detector in detectors:
        rounds = [said for said in detector.judgments if said.scores is not None and said.malicious is not None]
        if rounds:
            found.append((detector, *_pooled(rounds)))
    return found


def _pooled(rounds: list[Judgment]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.concatenate([normalized(np.asarray(said.scores, dtype=float)) for said in rounds])
    truth = np.concatenate([np.asarray(said.malicious, dtype=bool) for said in rounds])
    judged = ~np.isnan(values)
    return values[judged], truth[judged]


def _figure(
    view: View, setting: str, attack: str, found: list[tuple[Shown, NDArray[np.float64], NDArray[np.bool_]]]
) -> Html:
    figure = Figure(figsize=(WIDTH, 0.8 + 0.75 * len(found)), dpi=150, layout="constrained")
    grid = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (detector, values, truth) in zip(grid, found, strict=True):
        _bars(axes, values[~truth], values[truth])
        axes.set_title(detector.name, fontsize=8, loc="left", pad=2)
    grid[-1].set_xlabel("score, robust z within the round", fontsize=9)
    figure.suptitle(attack, fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    names = ", ".join(detector.name for detector, _, _ in found)
    return publish(
        figure,
        view.out,
        f"scores {setting} {attack}",
        alt=f"Histograms: scores of attackers and of benign clients under {attack}, for {names}",
        caption=f"Scores under {attack}; all rounds of {len(found[0][0].runs)} runs",
    )


def _bars(axes: Axes, benign: NDArray[np.float64], attackers: NDArray[np.float64]) -> None:
    edges = np.linspace(-REACH, REACH, 2 * REACH + 1)
    for values, color, label, hatch in ((benign, BENIGN, "benign", ""), (attackers, ATTACKER, "attackers", "////")):
        shares = np.histogram(values, edges)[0] / max(1, len(values))
        axes.bar(
            edges[:-1],
            shares,
            width=1.0,
            align="edge",
            color=color,
            alpha=0.6,
            label=label,
            hatch=hatch,
            edgecolor=color,
            linewidth=0.3,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
