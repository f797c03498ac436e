"""The titles of settings, attacks and defenses in tables: as short as possible, yet distinct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.measures.results import Results, RunResult

# The titles of the types "none".
NO_ATTACK, UNDEFENDED = "no attack", "undefended"
# The sections of a run's settings whose differences make up the title of a setting.
SECTIONS = ("data", "model", "federation")
Entry = Mapping[str, Any]


class Titles:
    """The titles of a benchmark's attacks, defenses and settings, in the order of its configuration.

    Args:
        results: the benchmark.

    Attributes:
        attacks, defenses, settings: all titles.
        places: the combinations of setting, attack and defense that were planned; see `place`.
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
        """Return the title of a run's attack.

        Args:
            run: of this benchmark.

        Returns:
            The title; "no attack" without one.
        """
        return self.attacks[self._attacks.index(run.attack)]

    def defense(self, run: RunResult) -> str:
        """Return the title of a run's defense.

        Args:
            run: of this benchmark.

        Returns:
            The title; "undefended" without one.
        """
        return self.defenses[self._defenses.index(run.defense)]

    def setting(self, run: RunResult) -> str:
        """Return the title of a run's setting: the values of data, model and federation in which the settings differ.

        Args:
            run: of this benchmark.

        Returns:
            The title; empty if all runs have the same setting.
        """
        return self.settings[self._settings.index(_flat(run))]

    def place(self, run: RunResult) -> tuple[str, str, str]:
        """Return the titles of a run's setting, attack and defense: its cell in the report.

        Args:
            run: of this benchmark.
        """
        return self.setting(run), self.attack(run), self.defense(run)

    def defense_type(self, name: str) -> str:
        """Return the `type` of a defense from its title.

        Args:
            name: one of `defenses`.

        Raises:
            ValueError: if no defense has this title.
        """
        return str(self._defenses[self.defenses.index(name)]["type"])


def title(chosen: Entry, among: Sequence[Entry], none: str) -> str:
    """Return the type of an entry, with its profile and the keys in which similar entries differ.

    Args:
        chosen: the attack or defense, a mapping with a `type`.
        among: all attacks or all defenses; those of the same type and profile are compared.
        none: the title for the type "none".

    Example:
        >>> first, second = {"type": "krum", "malicious": 0.1}, {"type": "krum", "malicious": 0.2}
        >>> title(first, [first, second], UNDEFENDED)
        'krum (malicious 0.1)'
        >>> title(first, [first], UNDEFENDED)
        'krum'
    """
    if chosen["type"] == "none":
        return none
    same = [other for other in among if all(other.get(key) == chosen.get(key) for key in ("type", "profile"))]
    differing = [key for key in chosen if any(other.get(key) != chosen[key] for other in same)]
    words = [chosen["profile"]] if "profile" in chosen else []
    words += [f"{key} {chosen[key]}" for key in differing if key != "profile"]
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
    differing = [key for key in chosen if any(other.get(key) != chosen[key] for other in among)]
    there = [key for key in differing if chosen[key] is not None] or differing
    words = [str(chosen[key]) if key.endswith(".name") else f"{key.split('.')[1]} {chosen[key]}" for key in there]
    return ", ".join(words)
