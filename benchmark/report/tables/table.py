"""A table as text: how its cells are written to a CSV file and read back."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.atomic_file import write_whole

Cell = str | int | float | bool | None

RUN = ("setting", "attack", "defense", "seed")
DETECTOR = (*RUN, "role", "detector")


@dataclass(frozen=True)
class Table:
    """Every cell is text already.

    Attributes:
        name: of the file, without .csv.
        headings: with units.
        rows: as long as the headings.
    """

    name: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def text(cell: Cell) -> str:
    """Nothing for None, yes or no, and ten digits of a number: more would differ between machines."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.10g}" if isinstance(cell, float) else str(cell)


def row(*cells: Cell) -> tuple[str, ...]:
    """One row of a table."""
    return tuple(text(cell) for cell in cells)


def joined(runs: Sequence[str]) -> str:
    """The folders that a number comes from, in one cell."""
    return " ".join(runs)


def write(table: Table, folder: Path) -> Path:
    """A whole file or none."""
    path = folder / f"{table.name}.csv"

    def write_rows(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([table.headings, *table.rows])

    write_whole(path, write_rows)
    return path


def read(path: Path) -> Table:
    """What `write` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        headings, *rows = [tuple(cells) for cells in csv.reader(file)] or [()]
    return Table(path.stem, headings, rows)
