"""All tables of a benchmark as CSV files.

Headings give the units. The last cell of each row names the runs that it comes from.
"""

from __future__ import annotations

from pathlib import Path

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results
from benchmark.report.tables.accuracy_csv import accuracy
from benchmark.report.tables.detection_csv import detection, detection_by_round
from benchmark.report.tables.paper_csv import paper
from benchmark.report.tables.recommendation_csv import recommendation
from benchmark.report.tables.runs_csv import runs
from benchmark.report.tables.runtime_csv import runtime
from benchmark.report.tables.summary_csv import differences, summary
from benchmark.report.tables.table import Table, write

# The folder of the tables inside the benchmark's folder.
FOLDER = "results"
# All tables; a new one is added here.
TABLES = (summary, differences, runs, accuracy, detection, detection_by_round, runtime, recommendation, paper)


def all_tables(results: Results, observations: Observations | None = None) -> list[Table]:
    """Compute all tables from the raw lines.

    Args:
        results: the benchmark.
        observations: its measured values; None: computed from `results`.
    """
    found = observations or Observations(results)
    return [table(results, found) for table in TABLES]


def write_tables(results: Results, observations: Observations, out: Path) -> list[Path]:
    """Write all tables into the folder `results` of the benchmark's folder.

    Args:
        results: the benchmark.
        observations: its measured values.
        out: the benchmark's folder.

    Returns:
        The paths of the files.
    """
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    return [write(table, folder) for table in all_tables(results, observations)]
