"""The paper's reported results, read from claims.csv.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning", ACM TOPS 2025,
Tables 1-6 and the figures for which its text gives numbers. They are claims, not targets.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("claims.csv")
# The columns of claims.csv that describe a claim; the others are metrics.
CONDITION = (
    *("place", "model", "data", "partition", "beta", "clients", "attackers", "attack", "poisoning_ratio"),
    *("method", "minus"),
)


@dataclass(frozen=True, eq=False)
class Claim:
    """One row of a table of the paper, or one number of its text.

    Attributes:
        place: the table or figure.
        model, data: names as in a configuration; None where our notes of the paper do not say.
        partition, beta: as in a configuration; None where our notes do not say.
        clients: the number of clients, malicious ones included.
        attackers: the fraction of the clients that is malicious.
        attack: its type.
        poisoning_ratio: of constrained_perturbation; None for others.
        method: the type of the defense.
        minus: if set, the values are differences: `method` minus this defense type.
        values: by name of the metric, in its unit; the paper's "AUC" is balanced accuracy.
    """

    place: str
    model: str | None
    data: str | None
    partition: str | None
    beta: float | None
    clients: int
    attackers: float
    attack: str
    poisoning_ratio: float | None
    method: str
    minus: str | None
    values: Mapping[str, float]

    @property
    def words(self) -> tuple[str, ...]:
        """Return the method and the condition in words."""
        partition = self.partition if self.beta is None else f"{self.partition} {self.beta:g}"
        part = None if self.poisoning_ratio in (None, 1.0) else f"poisoning_ratio {self.poisoning_ratio:g}"
        method = self.method if self.minus is None else f"{self.method} minus {self.minus}"
        on = f"{self.model}, {self.data}" if self.model else None
        attackers = f"{self.attackers:g} of {self.clients} clients malicious"
        return tuple(word for word in (method, partition, on, self.attack, part, attackers) if word)

    @property
    def title(self) -> str:
        """Return the words in which the claim differs from the others of its table or figure."""
        shared = shared_words(self.place)
        return ", ".join(word for word in self.words if word not in shared)


@cache
def claims() -> tuple[Claim, ...]:
    """Return all claims, in the order of the paper."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_claim(line) for line in csv.DictReader(file))


def places() -> list[str]:
    """Return all tables and figures that have claims."""
    return list(dict.fromkeys(claim.place for claim in claims()))


@cache
def shared_words(place: str) -> tuple[str, ...]:
    """Return the words that all claims of a table or figure have in common.

    Args:
        place: the table or figure.
    """
    first, *others = [claim.words for claim in claims() if claim.place == place]
    return tuple(word for word in first if all(word in words for words in others))


def heading(place: str) -> str:
    """Return a heading: the table or figure, and the words that its claims have in common.

    Args:
        place: the table or figure.
    """
    return f"{place} ({', '.join(shared_words(place))})"


def _claim(line: dict[str, str]) -> Claim:
    return Claim(
        place=line["place"],
        model=line["model"] or None,
        data=line["data"] or None,
        partition=line["partition"] or None,
        beta=_number(line["beta"]),
        clients=int(line["clients"]),
        attackers=float(line["attackers"]),
        attack=line["attack"],
        poisoning_ratio=_number(line["poisoning_ratio"]),
        method=line["method"],
        minus=line["minus"] or None,
        values={name: float(value) for name, value in line.items() if name not in CONDITION and value},
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
