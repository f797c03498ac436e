"""The paper's figures, read from claims.csv.

Source: Zheng et al., "GradCAM-AE: A New Shield Defense against Poisoning Attacks on Federated Learning", ACM TOPS 2025,
Tables 1-6 and the figures of which its text gives numbers. They are claims, not targets.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("claims.csv")
CONDITION = (
    *("place", "model", "data", "partition", "beta", "clients", "attackers", "attack", "poisoning_ratio"),
    *("method", "minus"),
)


@dataclass(frozen=True, eq=False)
class Claim:
    """One line of a table of the paper.

    Attributes:
        place: the table or figure.
        model, data: names as in a configuration; None where our notes of the paper do not say.
        partition, beta: likewise.
        clients: how many, malicious ones included.
        attackers: the malicious share of them.
        attack: its type.
        poisoning_ratio: of constrained_perturbation.
        method: the defense's type.
        minus: the claim is how much better `method` is than this type.
        values: by the name of the metric, in its unit; the paper's "AUC" is balanced accuracy.
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
        """Method and condition."""
        partition = self.partition if self.beta is None else f"{self.partition} {self.beta:g}"
        part = None if self.poisoning_ratio in (None, 1.0) else f"poisoning_ratio {self.poisoning_ratio:g}"
        method = self.method if self.minus is None else f"{self.method} minus {self.minus}"
        on = f"{self.model}, {self.data}" if self.model else None
        attackers = f"{self.attackers:g} of {self.clients} clients malicious"
        return tuple(word for word in (method, partition, on, self.attack, part, attackers) if word)

    @property
    def title(self) -> str:
        """What tells it from the others of its place."""
        shared = shared_words(self.place)
        return ", ".join(word for word in self.words if word not in shared)


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, in the order of the paper."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_claim(line) for line in csv.DictReader(file))


def places() -> list[str]:
    """Every table and figure that there are figures of."""
    return list(dict.fromkeys(claim.place for claim in claims()))


@cache
def shared_words(place: str) -> tuple[str, ...]:
    """What all claims of a table or figure have in common."""
    first, *others = [claim.words for claim in claims() if claim.place == place]
    return tuple(word for word in first if all(word in words for words in others))


def heading(place: str) -> str:
    """A table or figure and what its claims have in common."""
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
