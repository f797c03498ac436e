"""The section of detection metrics: of detectors that watched, on the same uploads, and of defenses that acted."""

from __future__ import annotations

from dataclasses import replace

from benchmark.measures import metrics
from benchmark.measures.metrics import Metric
from benchmark.measures.observations import Key
from benchmark.measures.titles import UNDEFENDED
from benchmark.report.markup import Html, details, grouped, heading, join, name, section, tag
from benchmark.report.numbers import cell, number, seconds
from benchmark.report.view import View


def detection(view: View) -> Html | None:
    """Return the section; None if no detector was measured.

    For each setting it has one table per acting defense whose runs were watched, undefended first, and one table of the
    acting defenses.

    Args:
        view: the benchmark.
    """
    parts = [part for setting in view.observations.titles.settings if (part := _setting(view, setting))]
    if not parts:
        return None
    return section(
        "detection",
        "Detection",
        tag(
            "p",
            "At the votes, means over seeds with 95 % intervals. A detector that watches judges the same uploads as "
            "the others and does not act. \N{DAGGER} Keeps a single upload: counted are the clients that it accuses, "
            "not those that it leaves out; a recall of 1 means nothing if it accuses all other clients, as Krum does. "
            "\N{EN DASH} is not defined, for instance precision where no client is accused.",
        ),
        *parts,
    )


def _setting(view: View, setting: str) -> Html | None:
    attacks, defenses = view.ran(setting)
    watchers = view.watchers()
    watched = [
        (defense, found)
        for defense in defenses
        if (
            found := _table(
                view,
                f"Watching, {'no defense' if defense == UNDEFENDED else defense} acting",
                {
                    attack: [Key(setting, attack, defense, "watched", watcher, "") for watcher in watchers]
                    for attack in attacks
                },
            )
        )
    ]
    acted = _table(
        view,
        "Acting, each in runs of its own",
        {attack: [Key(setting, attack, acting, "acting", acting, "") for acting in defenses] for attack in attacks},
    )
    if not watched and not acted:
        return None
    return join(
        tag("h3", setting) if setting else None,
        *(
            found if defense == UNDEFENDED else details(f"Watching while {defense} acts", found)
            for defense, found in watched
        ),
        details("Acting defenses", acted) if acted and watched else acted,
    )


def _table(view: View, caption: str, by_attack: dict[str, list[Key]]) -> Html | None:
    columns = {**metrics.OF_DECISIONS, **metrics.OF_SCORES, **metrics.OF_DETECTORS}
    groups = []
    for attack, keys in by_attack.items():
        measured = [key for key in keys if any(view.observations.by_seed(_with(key, metric)) for metric in columns)]
        rows = [[_name(view, key), *(_cell(view, key, metric) for metric in columns.values())] for key in measured]
        if rows:
            groups.append((name(attack), rows))
    if not groups:
        return None
    return grouped(caption, [heading("detector"), *(heading(metric.heading) for metric in columns.values())], groups)


def _name(view: View, key: Key) -> Html:
    mark = " \N{DAGGER}" if view.observations.accuses(key.role, key.detector) else None
    return heading(key.detector, mark, scope="row")


def _cell(view: View, key: Key, metric: Metric) -> Html:
    estimate = view.observations.estimate(_with(key, metric.name))
    if metric.unit == "s":
        return tag("td", seconds(estimate))
    if metric.unit != "fraction":
        return tag("td", number(estimate, digits=2))
    low, high = (0.0, 1.0) if metric.better == "higher" else (1.0, 0.0)
    return cell(estimate, low=low, high=high, digits=2)


def _with(key: Key, metric: str) -> Key:
    return replace(key, metric=metric)
