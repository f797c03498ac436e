"""The table runs.csv: all planned runs, with their metrics if they finished."""

from __future__ import annotations

from benchmark.measures import metrics
from benchmark.measures.observations import Key, Observations
from benchmark.measures.results import Results
from benchmark.report.tables.table import RUN, Table, joined, row


def runs(results: Results, observations: Observations) -> Table:
    """Return a table with one row per run.

    The column `runs` also names the run without attack that the attack impact is computed against. A benchmark that
    chooses settings has a column `seed is for`: choosing them, or judging.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    shown = [name for name in metrics.OF_RUNS if not metrics.OF_RUNS[name].targeted or name in observations.measured]
    rows = []
    for run in results.runs:
        place = titles.place(run)
        found = [
            {**observations.by_seed(key), **observations.on_validation(key)}.get(run.seed)
            if run.state == "finished"
            else None
            for key in (Key(*place, "run", "", name) for name in shown)
        ]
        sources = dict.fromkeys([run.folder, *(folder for figure in found if figure for folder in figure.runs)])
        values = [None if figure is None else figure.value for figure in found]
        purpose = ["choosing" if run.seed in results.validation_seeds else "judging"] if results.sweep else []
        rows.append(row(*place, run.seed, *purpose, run.state, *values, joined(list(sources))))
    headings = [metrics.OF_RUNS[name].heading for name in shown]
    return Table("runs", (*RUN, *(["seed is for"] if results.sweep else []), "state", *headings, "runs"), rows)
