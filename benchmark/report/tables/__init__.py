"""All tables of a benchmark, as CSV files: units are in the headings, the runs behind each row in its last cell."""

from __future__ import annotations

from pathlib import Path

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results
from benchmark.report.tables.accuracy import accuracy
from benchmark.report.tables.detection import detection, detection_by_round
from benchmark.report.tables.paper import paper
from benchmark.report.tables.runs import runs
from benchmark.report.tables.runtime import runtime
from benchmark.report.tables.summary import differences, summary
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
