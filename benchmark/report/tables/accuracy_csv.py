"""The table accuracy.csv: the global model on the test set after each tested round."""

from __future__ import annotations

from benchmark.measures.observations import Observations
from benchmark.measures.results import Results
from benchmark.report.tables.table import RUN, Table, row


def accuracy(results: Results, observations: Observations) -> Table:
    """Return a table with one row per run and tested round.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    return Table(
        "accuracy",
        (
            *RUN,
            "round",
            "accuracy (fraction)",
            "worst-class accuracy (fraction)",
            "worst class",
            "runs",
        ),
        [
            row(
                *titles.place(run),
                run.seed,
                test.round,
                test.accuracy,
                *_worst({number: value for number, value in enumerate(test.class_accuracy) if value is not None}),
                run.folder,
            )
            for run in results.finished
            for test in run.tests
        ],
    )


def _worst(by_class: dict[int, float]) -> tuple[float | None, int | None]:
    if not by_class:
        return None, None
    worst = min(by_class, key=by_class.__getitem__)
    return by_class[worst], worst
