"""The tables summary.csv and differences.csv: means over seeds with their intervals, as in the report."""

from __future__ import annotations

from itertools import combinations

from benchmark.measures import metrics
from benchmark.measures.intervals import Estimate, difference
from benchmark.measures.metrics import Metric
from benchmark.measures.observations import Key, Observations
from benchmark.measures.results import Results
from benchmark.report.tables.table import Cell, Table, joined, row

# The headings of an estimate's cells.
INTERVAL = ("unit", "mean", "95 % interval from", "95 % interval to", "seeds", "runs")


def summary(results: Results, observations: Observations) -> Table:
    """Return a table with one row per mean over seeds; detection metrics are means over the votes.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    return Table(
        "summary",
        ("setting", "attack", "defense", "role", "detector", "metric", "decision", *INTERVAL),
        [
            row(
                key.setting,
                key.attack,
                key.defense,
                key.role,
                key.detector,
                key.metric,
                observations.decision(key.role, key.detector) if key.metric in metrics.OF_DECISIONS else None,
                unit(key.metric),
                *interval_cells(found),
            )
            for key in observations.keys()  # noqa: SIM118 - not a mapping
            if (found := observations.estimate(key)) is not None
        ],
    )


def differences(results: Results, observations: Observations) -> Table:
    """Return a table with one row per metric and pair of defenses: first minus second on the same seeds.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    rows = []
    for setting in titles.settings:
        for attack in titles.attacks:
            for first, second in combinations(titles.defenses, 2):
                for role, names in (("run", metrics.OF_RUNS), ("acting", _of_defenses())):
                    for name in names:
                        one, other = (
                            observations.by_seed(
                                Key(setting, attack, defense, role, defense if role == "acting" else "", name)  # type: ignore[arg-type]
                            )
                            for defense in (first, second)
                        )
                        if (found := difference(one, other)) is not None:
                            rows.append(row(setting, attack, first, second, name, unit(name), *interval_cells(found)))
    return Table("differences", ("setting", "attack", "defense", "minus defense", "metric", *INTERVAL), rows)


def interval_cells(found: Estimate) -> tuple[Cell, ...]:
    """Return the cells of an estimate, in the order of `INTERVAL` after the unit.

    Args:
        found: the mean over seeds.
    """
    return found.mean, found.low, found.high, found.seeds, joined(found.runs)


def unit(name: str) -> str:
    """Return the unit of a metric.

    Args:
        name: of the metric.
    """
    return {**metrics.OF_RUNS, **_of_defenses()}[name].unit


def _of_defenses() -> dict[str, Metric]:
    return {**metrics.OF_DECISIONS, **metrics.OF_SCORES, **metrics.OF_DETECTORS}
