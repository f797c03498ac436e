"""The section of accuracy over rounds: one panel per attack, with intervals over seeds."""

from __future__ import annotations

from benchmark.measures.intervals import interval
from benchmark.measures.results import RunResult
from benchmark.report.figures import legend_below, panel, publish, style
from benchmark.report.markup import Html, join, section, tag
from benchmark.report.view import View


def curves(view: View) -> Html:
    """Return the section, with one panel for each attack of each setting.

    Args:
        view: the benchmark.
    """
    parts = []
    for setting in view.observations.titles.settings:
        attacks, _ = view.ran(setting)
        panels = [_panel(view, setting, attack) for attack in attacks]
        parts.append(join(tag("h3", setting) if setting else None, tag("div", *panels, class_="panels")))
    return section(
        "curves", "Accuracy over rounds", tag("p", "Means over seeds; shaded: 95 % bootstrap interval."), *parts
    )


def _panel(view: View, setting: str, attack: str) -> Html:
    figure, axes = panel()
    names = []
    for position, defense in enumerate(view.observations.titles.defenses):
        runs = view.runs(setting, attack, defense)
        rounds, means, lows, highs = _curve(runs)
        if not rounds:
            continue
        names.append(defense)
        look = style(position)
        axes.plot(rounds, means, label=defense, markevery=max(1, len(rounds) // 8), markersize=4, linewidth=1.5, **look)  # type: ignore[arg-type]
        axes.fill_between(rounds, lows, highs, color=look["color"], alpha=0.18, linewidth=0)
    axes.set(ylim=(0, 1.02))
    axes.set_xlabel("round", fontsize=9)
    axes.set_ylabel("test accuracy (fraction)", fontsize=9)
    axes.set_title(attack, fontsize=10)
    legend_below(figure, axes)
    return publish(
        figure,
        view.out,
        f"accuracy {setting} {attack}",
        alt=f"Lines: test accuracy over rounds under {attack}, one for each of {', '.join(names)}",
        caption=f"Test accuracy over rounds: {attack}",
    )


def _curve(runs: list[RunResult]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Return rounds, means, and lower and upper bounds; with a single seed the bounds equal the mean."""
    by_round: dict[int, list[float]] = {}
    for run in runs:
        for test in run.tests:
            by_round.setdefault(test.round, []).append(test.accuracy)
    rounds = sorted(by_round)
    means = [sum(by_round[round]) / len(by_round[round]) for round in rounds]
    between = [interval(by_round[round]) for round in rounds]
    lows = [mean if low is None else low for mean, (low, _) in zip(means, between, strict=True)]
    highs = [mean if high is None else high for mean, (_, high) in zip(means, between, strict=True)]
    return rounds, means, lows, highs
