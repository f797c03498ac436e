"""What every section of the report is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results, RunResult


@dataclass(frozen=True)
class View:
    """One benchmark, ready to be shown.

    Attributes:
        out: its folder; figures go to `out/figures`.
    """

    out: Path
    results: Results
    observations: Observations

    def runs(self, setting: str, attack: str, defense: str) -> list[RunResult]:
        """The finished ones, one per seed."""
        titles = self.observations.titles
        return [run for run in self.results.finished if titles.place(run) == (setting, attack, defense)]

    def ran(self, setting: str) -> tuple[list[str], list[str]]:
        """The attacks and the defenses of this setting that have a finished run."""
        titles = self.observations.titles
        runs = [run for run in self.results.finished if titles.setting(run) == setting]
        attacks, defenses = {titles.attack(run) for run in runs}, {titles.defense(run) for run in runs}
        return [name for name in titles.attacks if name in attacks], [n for n in titles.defenses if n in defenses]

    def watchers(self) -> list[str]:
        """Names of the detectors that watched."""
        return list(dict.fromkeys(name for run in self.results.finished for name in run.watched))
