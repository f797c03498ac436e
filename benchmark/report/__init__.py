"""The report of a benchmark: report.html, which needs no other file, tables as CSV, figures as PNG and SVG."""

from __future__ import annotations

from pathlib import Path

from benchmark.atomic_file import write_whole
from benchmark.measures.observations import Observations
from benchmark.measures.results import load
from benchmark.report.console import console
from benchmark.report.page import page
from benchmark.report.tables import write_tables
from benchmark.report.view import View


def report(out: Path) -> None:
    """Write the report into the benchmark's folder and print the table.

    Args:
        out: the results folder.

    Raises:
        SettingsError: if it is no results folder, or a file in it is damaged.
    """
    results = load(out)
    observations = Observations(results)
    text = console(results, observations)
    (out / "table.txt").write_text(f"{text}\n", encoding="utf-8")
    write_tables(results, observations, out)
    html = page(View(out, results, observations))
    write_whole(out / "report.html", lambda partial: partial.write_text(html, encoding="utf-8"))
    print(f"\n{text}\n\nWritten to {out}: report.html, table.txt, results/*.csv, figures/*.png and *.svg.")
