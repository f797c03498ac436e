"""The table paper.csv: the paper's claims beside our measured values."""

from __future__ import annotations

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results
from benchmark.paper import beside
from benchmark.report.tables.summary_csv import INTERVAL, interval_cells, unit
from benchmark.report.tables.table import Table, row


def paper(results: Results, observations: Observations) -> Table:
    """Return a table with one row per claim, metric and way of measuring (acting or watching).

    The cells of our values are empty where nothing was run or the metric is not defined.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    rows = []
    for line in beside(results, observations):
        for metric, claimed in line.claim.values.items():
            found = line.found[metric]
            place = (line.claim.place, line.claim.title, line.claim.model, line.claim.data, metric, claimed)
            ours = (line.on, line.setting, line.attack, line.defense, line.how or "not run")
            numbers = (None,) * (len(INTERVAL) - 1) if found is None else interval_cells(found)
            rows.append(row(*place, *ours, unit(metric), *numbers))
    headings = ("place", "claim", "paper's model", "paper's data", "metric", "paper")
    return Table("paper", (*headings, "ours on", "setting", "attack", "method", "how", *INTERVAL), rows)
