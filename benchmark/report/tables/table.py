"""Tables as text, written to CSV files and read back."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.atomic_file import write_whole

Cell = str | int | float | bool | None

# The headings of the columns that identify a run, or a detector in a run.
RUN = ("setting", "attack", "defense", "seed")
DETECTOR = (*RUN, "role", "detector")


@dataclass(frozen=True)
class Table:
    """A table whose cells are already text.

    Attributes:
        name: of the file, without .csv.
        headings: with units.
        rows: each with one cell per heading.
    """

    name: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def text(cell: Cell) -> str:
    """Return a cell as text.

    None is empty, a bool is yes or no, and a float has ten significant digits: further ones would differ between
    machines.

    Args:
        cell: the value.

    Example:
        >>> text(None), text(True), text(1 / 3)
        ('', 'yes', '0.3333333333')
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.10g}" if isinstance(cell, float) else str(cell)


def row(*cells: Cell) -> tuple[str, ...]:
    """Return one row of a table: the values as text."""
    return tuple(text(cell) for cell in cells)


def joined(runs: Sequence[str]) -> str:
    """Return the folders of runs in one cell, separated by spaces.

    Args:
        runs: names of folders.
    """
    return " ".join(runs)


def write(table: Table, folder: Path) -> Path:
    """Write a table to NAME.csv, replacing the file only when it is complete.

    Args:
        table: the table.
        folder: where to write it; it must exist.

    Returns:
        The path of the file.
    """
    path = folder / f"{table.name}.csv"

    def write_rows(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([table.headings, *table.rows])

    write_whole(path, write_rows)
    return path


def read(path: Path) -> Table:
    """Read a table that `write` wrote.

    Args:
        path: the CSV file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        headings, *rows = [tuple(cells) for cells in csv.reader(file)] or [()]
    return Table(path.stem, headings, rows)
