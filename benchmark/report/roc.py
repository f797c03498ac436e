"""The section of ROC curves: one panel per attack, one curve per detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from benchmark.measures.detector_figures import score_averages
from benchmark.measures.judgments import Judgment
from benchmark.report.detectors import panels, shown
from benchmark.report.figures import legend_below, panel, publish, style
from benchmark.report.markup import Html, section, tag
from benchmark.report.view import View

# False-positive rates at which the curves of different rounds are averaged.
GRID = np.linspace(0, 1, 201)


def roc(view: View) -> Html | None:
    """Return the section; None if no detector wrote scores under any attack.

    Args:
        view: the benchmark.
    """
    parts = panels(view, lambda setting, attack: _panel(view, setting, attack))
    if not parts:
        return None
    return section(
        "roc",
        "ROC curves",
        tag(
            "p",
            "Recall against false-positive rate, for every threshold of the scores. One curve per round, averaged over "
            "all rounds and seeds, since scores of different rounds are not comparable; the area under each round's "
            "curve, averaged, is the AUROC in the legend. Below the diagonal, benign clients have higher scores than "
            "attackers.",
        ),
        *parts,
    )


def mean_curve(judgments: Sequence[Judgment]) -> NDArray[np.float64] | None:
    """Average the ROC curves of rounds that have both attackers and benign clients.

    Args:
        judgments: of one detector.

    Returns:
        The recall at each false-positive rate of `GRID`, (201,); None if there is no such round with scores.
    """
    found = []
    for said in judgments:
        if said.malicious is None or said.scores is None:
            continue
        values, truth = np.asarray(said.scores, dtype=float), np.asarray(said.malicious, dtype=bool)
        judged = ~np.isnan(values)
        values, truth = values[judged], truth[judged]
        if truth.any() and not truth.all():
            ranks = np.unique(values, return_inverse=True)[1]  # roc_curve rejects infinity
            rates, recalls, _ = roc_curve(truth, ranks, drop_intermediate=False)
            found.append(np.interp(GRID, rates, recalls))
    return np.mean(found, axis=0) if found else None


def _panel(view: View, setting: str, attack: str) -> Html | None:
    figure, axes = panel(height=4.3)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    names = []
    for position, detector in enumerate(shown(view, setting, attack)):
        curve = mean_curve(detector.judgments)
        if curve is None:
            continue
        area = score_averages(detector.judgments)["AUROC"]
        names.append(detector.name)
        label = f"{detector.name} {area:.2f}"
        look = style(position)
        axes.plot([0, *GRID], [0, *curve], label=label, markevery=25, markersize=4, linewidth=1.5, **look)  # type: ignore[arg-type]
    if not names:
        return None
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel("false-positive rate (fraction)", fontsize=9)
    axes.set_ylabel("recall (fraction)", fontsize=9)
    axes.set_title(attack, fontsize=10)
    legend_below(figure, axes)
    return publish(
        figure,
        view.out,
        f"roc {setting} {attack}",
        alt=f"ROC curves under {attack} of {', '.join(names)}",
        caption=f"ROC under {attack}, AUROC in the legend",
    )
