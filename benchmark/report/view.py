"""The data that every section of the report is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results, RunResult


@dataclass(frozen=True)
class View:
    """One benchmark, ready to be shown.

    Attributes:
        out: its folder; figures are written to `out/figures`.
        results: all planned runs.
        observations: the measured values of its finished runs.
    """

    out: Path
    results: Results
    observations: Observations

    def runs(self, setting: str, attack: str, defense: str) -> list[RunResult]:
        """Return the finished runs of a cell, one per seed.

        Args:
            setting, attack, defense: titles.
        """
        titles = self.observations.titles
        return [run for run in self.results.judged if titles.place(run) == (setting, attack, defense)]

    def ran(self, setting: str) -> tuple[list[str], list[str]]:
        """Return the titles of the attacks and of the defenses that have a finished run in a setting.

        Args:
            setting: its title.
        """
        titles = self.observations.titles
        runs = [run for run in self.results.judged if titles.setting(run) == setting]
        attacks, defenses = {titles.attack(run) for run in runs}, {titles.defense(run) for run in runs}
        return [name for name in titles.attacks if name in attacks], [n for n in titles.defenses if n in defenses]

    def watchers(self) -> list[str]:
        """Return the names of all detectors that watched a finished run."""
        return list(dict.fromkeys(name for run in self.results.judged for name in run.watched))
