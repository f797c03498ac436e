"""Which judgments a figure about detectors shows: the watchers on undefended runs, or else what acted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmark.measures.judgments import Judgment
from benchmark.measures.titles import NO_ATTACK, UNDEFENDED
from benchmark.report.markup import Html, join, tag
from benchmark.report.view import View


@dataclass(frozen=True)
class Shown:
    """One detector under one attack: its judgments at the votes and all rounds of every seed.

    Attributes:
        name: of the watcher, or the title of the defense.
        runs: the folders.
        judgments: of all rounds of all seeds.
    """

    name: str
    runs: list[str]
    judgments: Sequence[Judgment]


def beside_nobody(view: View, setting: str) -> bool:
    """Whether detectors watched in undefended runs: all on the same uploads, which is the fair comparison."""
    attacks, _ = view.ran(setting)
    return any(run.watched for attack in attacks for run in view.runs(setting, attack, UNDEFENDED))


def shown(view: View, setting: str, attack: str) -> list[Shown]:
    """The watchers in the undefended runs; without any, each defense in its own runs."""
    if beside_nobody(view, setting):
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
    """Where the figures come from, for their captions."""
    if beside_nobody(view, setting):
        return "Every detector saw the same uploads, those of the undefended runs, and none of them acted."
    return "Every detector acted in runs of its own, so they did not see the same uploads."


def panels(view: View, panel: Callable[[str, str], Html | None]) -> list[Html]:
    """For each setting its panels under each attack, headed and with their source; nothing where there are none.

    Args:
        view: of the results.
        panel: from a setting and an attack to a figure, None where there is nothing to show.
    """
    parts = []
    for setting in view.observations.titles.settings:
        attacks, _ = view.ran(setting)
        found = [figure for attack in attacks if attack != NO_ATTACK and (figure := panel(setting, attack))]
        if found:
            heading = tag("h3", setting) if setting else None
            parts.append(join(heading, tag("p", source_note(view, setting)), tag("div", *found, class_="panels")))
    return parts
