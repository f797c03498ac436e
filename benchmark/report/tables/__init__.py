"""All tables of a benchmark, as CSV files: units are in the headings, the runs behind each row in its last cell."""

from __future__ import annotations

from pathlib import Path

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results
from benchmark.report.tables.accuracy_csv import accuracy
from benchmark.report.tables.detection_csv import detection, detection_by_round
from benchmark.report.tables.paper_csv import paper
from benchmark.report.tables.runs_csv import runs
from benchmark.report.tables.runtime_csv import runtime
from benchmark.report.tables.summary_csv import differences, summary
from benchmark.report.tables.table import Table, write

FOLDER = "results"
TABLES = (summary, differences, runs, accuracy, detection, detection_by_round, runtime, paper)


def all_tables(results: Results, observations: Observations | None = None) -> list[Table]:
    """Each from the raw lines alone."""
    found = observations or Observations(results)
    return [table(results, found) for table in TABLES]


def write_tables(results: Results, observations: Observations, out: Path) -> list[Path]:
    """Into the folder `results` of the benchmark's folder."""
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    return [write(table, folder) for table in all_tables(results, observations)]
