"""The section on costs: time per round against accuracy in the worst case, and time and memory in tables."""

from __future__ import annotations

from benchmark.measures.intervals import estimate
from benchmark.measures.observations import Key
from benchmark.measures.recommendation import answer
from benchmark.report.figures import legend_below, panel, publish, style
from benchmark.report.markup import Html, grouped, heading, join, section, table, tag
from benchmark.report.names import titled
from benchmark.report.numbers import decimals, number, seconds
from benchmark.report.view import View


def runtime(view: View) -> Html:
    """Return the section, with a figure and tables for each setting.

    Args:
        view: the benchmark.
    """
    return section(
        "runtime",
        "Runtime against accuracy",
        tag(
            "p",
            "Seconds are of the defense alone, on the machine that ran the benchmark; compare within one report only.",
        ),
        *(_setting(view, setting) for setting in view.observations.titles.settings),
    )


def _setting(view: View, setting: str) -> Html:
    return join(
        tag("h3", setting) if setting else None,
        _scatter(view, setting),
        _costs(view, setting),
        _watchers(view, setting),
    )


def _scatter(view: View, setting: str) -> Html | None:
    candidates = answer(view.results, view.observations, setting).candidates
    timed = [(candidate, candidate.seconds) for candidate in candidates if candidate.seconds]
    if not timed:
        return None
    figure, axes = panel(height=3.8)
    for candidate, time in timed:
        look = style(view.observations.titles.defenses.index(candidate.defense))
        worst = candidate.worst
        reach = (
            None if worst.low is None or worst.high is None else ([worst.mean - worst.low], [worst.high - worst.mean])
        )
        axes.errorbar(
            [max(time.mean, 1e-6)],
            [worst.mean],
            yerr=reach,
            fmt=look["marker"],
            color=look["color"],
            label=candidate.defense,
            capsize=3,
        )
    for candidate in candidates:
        if candidate.seconds is None:
            axes.axhline(candidate.worst.mean, color="#555555", linestyle="--", linewidth=1, label=candidate.defense)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("time of the defense (s per round)", fontsize=9)
    axes.set_ylabel("accuracy in the worst case (fraction)", fontsize=9)
    legend_below(figure, axes)
    names = ", ".join(candidate.defense for candidate, _ in timed)
    return publish(
        figure,
        view.out,
        f"runtime {setting}",
        alt=f"Points: seconds per round against accuracy under the worst attack, for {names}",
        caption="Up and to the left is better; bars are 95 % intervals over seeds",
    )


def _costs(view: View, setting: str) -> Html | None:
    """Return a table by defense and attack: time of the defense, time of the whole run, and peak memory."""
    attacks, defenses = view.ran(setting)
    found = view.observations
    groups = [
        (
            titled(view, defense),
            [
                [
                    heading(attack, scope="row"),
                    tag(
                        "td",
                        seconds(estimate(found.of_defense(setting, attack, defense, "seconds per round"))),
                    ),
                    tag("td", number(estimate(found.of_run(setting, attack, defense, "whole run")), digits=0)),
                    tag("td", number(estimate(found.of_run(setting, attack, defense, "peak memory")), digits=0)),
                ]
                for attack in attacks
                if view.runs(setting, attack, defense)
            ],
        )
        for defense in defenses
    ]
    head = [
        heading(title)
        for title in ("attack", "defense alone (s per round)", "whole run (s)", "peak memory of the run (MiB)")
    ]
    return grouped("What a run costs", head, groups) if groups else None


def _watchers(view: View, setting: str) -> Html | None:
    """Return a table of the time of detectors that watched: the mean over all runs, and the slowest run."""
    attacks, defenses = view.ran(setting)
    rows = []
    for name in view.watchers():
        measured = {
            (attack, defense, seed): measurement
            for attack in attacks
            for defense in defenses
            for seed, measurement in view.observations.by_seed(
                Key(setting, attack, defense, "watched", name, "seconds per round")
            ).items()
        }
        if measured:
            values = [one.value for one in measured.values()]
            title = f"{len(values)} runs: {', '.join(run for one in measured.values() for run in one.runs)}"
            means = (sum(values) / len(values), max(values))
            cells = [tag("td", tag("span", f"{value:.{decimals(value)}f}", class_="n", title=title)) for value in means]
            rows.append([heading(name, scope="row"), *cells])
    head = [heading(title) for title in ("detector", "mean (s per round)", "slowest run (s per round)")]
    return table("What watching costs, over all runs", head, rows) if rows else None
