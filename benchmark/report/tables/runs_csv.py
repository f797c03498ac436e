"""runs.csv: every run that was planned, and its figures if it finished."""

from __future__ import annotations

from benchmark.measures import metrics
from benchmark.measures.observations import Key, Observations
from benchmark.measures.results import Results
from benchmark.report.tables.table import RUN, Table, joined, row


def runs(results: Results, observations: Observations) -> Table:
    """One row per run; `runs` also names the run without attack that the impact is measured against."""
    titles = observations.titles
    rows = []
    for run in results.runs:
        place = titles.place(run)
        found = [
            observations.by_seed(Key(*place, "run", "", name)).get(run.seed) if run.state == "finished" else None
            for name in metrics.OF_RUNS
        ]
        sources = dict.fromkeys([run.folder, *(folder for figure in found if figure for folder in figure.runs)])
        values = [None if figure is None else figure.value for figure in found]
        rows.append(row(*place, run.seed, run.state, *values, joined(list(sources))))
    headings = [metric.heading for metric in metrics.OF_RUNS.values()]
    return Table("runs", (*RUN, "state", *headings, "runs"), rows)
