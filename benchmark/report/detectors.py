"""The judgments that figures of detectors show.

These are the judgments of watchers of undefended runs or, if there are none, those of the acting defenses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmark.measures.judgments import Judgment
from benchmark.measures.titles import NO_ATTACK, UNDEFENDED
from benchmark.report.markup import Html, join, tag
from benchmark.report.view import View


@dataclass(frozen=True)
class Shown:
    """One detector under one attack, for figures.

    Attributes:
        name: of the watcher, or the title of the acting defense.
        runs: the folders of the runs.
        judgments: of all rounds of all seeds.
    """

    name: str
    runs: list[str]
    judgments: Sequence[Judgment]


def watched_undefended(view: View, setting: str) -> bool:
    """Return whether detectors watched undefended runs.

    Detectors that watched are compared fairly: all of them judged the same uploads.

    Args:
        view: the benchmark.
        setting: its title.
    """
    attacks, _ = view.ran(setting)
    return any(run.watched for attack in attacks for run in view.runs(setting, attack, UNDEFENDED))


def shown(view: View, setting: str, attack: str) -> list[Shown]:
    """Return the detectors under one attack with their judgments.

    These are the watchers of undefended runs or, if there are none, each defense in its own runs.

    Args:
        view: the benchmark.
        setting, attack: titles.
    """
    if watched_undefended(view, setting):
        runs = view.runs(setting, attack, UNDEFENDED)
        return [
            Shown(name, [run.folder for run in runs], [said for run in runs for said in run.watched.get(name, [])])
            for name in view.watchers()
        ]
    _, defenses = view.ran(setting)
    return [
        Shown(name, [run.folder for run in runs], [said for run in runs for said in run.acting])
        for name in defenses
        if name != UNDEFENDED and (runs := view.runs(setting, attack, name))
    ]


def source_note(view: View, setting: str) -> str:
    """Return a sentence for captions that says which runs the judgments come from.

    Args:
        view: the benchmark.
        setting: its title.
    """
    if watched_undefended(view, setting):
        return "Every detector saw the same uploads, those of the undefended runs, and none of them acted."
    return "Every detector acted in runs of its own, so they did not see the same uploads."


def panels(view: View, panel: Callable[[str, str], Html | None]) -> list[Html]:
    """Return a part for each setting: a heading, a note on the source, and one panel per attack.

    Args:
        view: the benchmark.
        panel: a function from the titles of a setting and an attack to a figure; None where there is nothing to show.

    Returns:
        The parts; settings without any figure are left out.
    """
    parts = []
    for setting in view.observations.titles.settings:
        attacks, _ = view.ran(setting)
        found = [figure for attack in attacks if attack != NO_ATTACK and (figure := panel(setting, attack))]
        if found:
            heading = tag("h3", setting) if setting else None
            parts.append(join(heading, tag("p", source_note(view, setting)), tag("div", *found, class_="panels")))
    return parts
