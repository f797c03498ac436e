"""The table runtime.csv: the time of the judgments by stage."""

from __future__ import annotations

from statistics import fmean

from benchmark.measures.observations import Observations, detectors
from benchmark.measures.results import Results
from benchmark.report.tables.table import DETECTOR, Table, row


def runtime(results: Results, observations: Observations) -> Table:
    """Return a table with one row per run, detector and stage.

    The stage `total` is the whole judgment, so that it contains the others.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    rows = []
    for run in results.finished:
        for role, detector, judgments in detectors(run, titles):
            for stage in dict.fromkeys(stage for judgment in judgments for stage in judgment.seconds):
                seconds = [judgment.seconds[stage] for judgment in judgments if stage in judgment.seconds]
                rows.append(
                    row(
                        *titles.place(run),
                        run.seed,
                        role,
                        detector,
                        stage,
                        fmean(seconds),
                        max(seconds),
                        len(seconds),
                        run.folder,
                    )
                )
    return Table(
        "runtime",
        (
            *DETECTOR,
            "stage",
            "mean per round (s)",
            "longest round (s)",
            "rounds",
            "runs",
        ),
        rows,
    )
