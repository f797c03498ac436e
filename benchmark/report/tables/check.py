"""The check of `python -m benchmark check DIR`: whether the tables on disk agree with the raw lines."""

from __future__ import annotations

import math
from pathlib import Path

from benchmark.measures.results import load
from benchmark.report.tables import FOLDER, all_tables
from benchmark.report.tables.table import Table, read

# The maximum number of differences that are printed.
SHOWN = 20


def check(out: Path) -> int:
    """Recompute every table and print the differences from the files.

    Args:
        out: the results folder.

    Returns:
        0 if there is no difference, 1 otherwise.
    """
    tables = all_tables(load(out))
    differences = [line for table in tables for line in compare(table, out / FOLDER / f"{table.name}.csv")]
    if not differences:
        rows = sum(len(table.rows) for table in tables)
        print(f"{len(tables)} tables with {rows} rows in {out / FOLDER} follow from the raw lines.")
        return 0
    print("\n".join(differences[:SHOWN]))
    if len(differences) > SHOWN:
        print(f"... and {len(differences) - SHOWN} more differences")
    print(f"The tables in {out / FOLDER} do not follow from the raw lines: `python -m benchmark report {out}` anew.")
    return 1


def compare(expected: Table, path: Path) -> list[str]:
    """Compare a table with its file.

    Args:
        expected: the recomputed table.
        path: the CSV file.

    Returns:
        One line per difference.
    """
    if not path.exists():
        return [f"{path.name}: missing"]
    found = read(path)
    if found.headings != expected.headings:
        return [f"{path.name}: the headings are {', '.join(found.headings)}; expected {', '.join(expected.headings)}"]
    if len(found.rows) != len(expected.rows):
        return [f"{path.name}: {len(found.rows)} rows, expected {len(expected.rows)}"]
    lines = []
    for number, (cells, wanted) in enumerate(zip(found.rows, expected.rows, strict=True), start=2):
        if len(cells) != len(wanted):
            lines.append(f"{path.name}, line {number}: {len(cells)} cells, expected {len(wanted)}")
            continue
        lines += [
            f"{path.name}, line {number}, {heading}: {cell!r}, expected {want!r}"
            for heading, cell, want in zip(expected.headings, cells, wanted, strict=True)
            if not _same(cell, want)
        ]
    return lines


def _same(cell: str, wanted: str) -> bool:
    """Return whether two cells are equal as text, or as numbers up to rounding: last digits depend on the machine."""
    if cell == wanted:
        return True
    try:
        return math.isclose(float(cell), float(wanted), rel_tol=1e-8, abs_tol=1e-12)
    except ValueError:
        return False
