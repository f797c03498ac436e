"""What settings, attacks and defenses are called in tables: as short as tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.measures.results import Results, RunResult

NO_ATTACK, UNDEFENDED = "no attack", "undefended"
SECTIONS = ("data", "model", "federation")
Entry = Mapping[str, Any]


class Titles:
    """The names of one benchmark's parts, in the order of its configuration.

    Attributes:
        attacks, defenses, settings: all of them.
        places: which of them were to be run together, see `place`.
    """

    def __init__(self, results: Results) -> None:
        self._attacks = _distinct([run.attack for run in results.runs])
        self._defenses = _distinct([run.defense for run in results.runs])
        self._settings = _distinct([_flat(run) for run in results.runs])
        self.attacks = [title(entry, self._attacks, NO_ATTACK) for entry in self._attacks]
        self.defenses = [title(entry, self._defenses, UNDEFENDED) for entry in self._defenses]
        self.settings = [_setting(entry, self._settings) for entry in self._settings]
        self.places = {self.place(run) for run in results.runs}

    def attack(self, run: RunResult) -> str:
        """ "no attack" or its type."""
        return self.attacks[self._attacks.index(run.attack)]

    def defense(self, run: RunResult) -> str:
        """ "undefended" or its type."""
        return self.defenses[self._defenses.index(run.defense)]

    def setting(self, run: RunResult) -> str:
        """What its data, model and federation have that others have not; empty if all runs share one setting."""
        return self.settings[self._settings.index(_flat(run))]

    def place(self, run: RunResult) -> tuple[str, str, str]:
        """Setting, attack and defense: the cell of the report that a run belongs to."""
        return self.setting(run), self.attack(run), self.defense(run)

    def defense_type(self, name: str) -> str:
        """The `type` of a defense, from its title."""
        return str(self._defenses[self.defenses.index(name)]["type"])


def title(chosen: Entry, among: Sequence[Entry], none: str) -> str:
    """The type, with its profile and whatever tells it from the other entries of the same type and profile."""
    if chosen["type"] == "none":
        return none
    same = [other for other in among if all(other.get(key) == chosen.get(key) for key in ("type", "profile"))]
    telling = [key for key in chosen if any(other.get(key) != chosen[key] for other in same)]
    words = [chosen["profile"]] if "profile" in chosen else []
    words += [f"{key} {chosen[key]}" for key in telling if key != "profile"]
    return f"{chosen['type']} ({', '.join(words)})" if words else str(chosen["type"])


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    found: list[Entry] = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def _flat(run: RunResult) -> Entry:
    return {f"{section}.{key}": value for section in SECTIONS for key, value in getattr(run, section).items()}


def _setting(chosen: Entry, among: Sequence[Entry]) -> str:
    telling = [key for key in chosen if any(other.get(key) != chosen[key] for other in among)]
    there = [key for key in telling if chosen[key] is not None] or telling
    words = [str(chosen[key]) if key.endswith(".name") else f"{key.split('.')[1]} {chosen[key]}" for key in there]
    return ", ".join(words)
