"""The table accuracy.csv: the global model on the test set after each tested round."""

from __future__ import annotations

from benchmark.measures import metrics
from benchmark.measures.observations import Observations
from benchmark.measures.recommendation import SUCCESS
from benchmark.measures.results import Results
from benchmark.report.tables.table import RUN, Table, row


def accuracy(results: Results, observations: Observations) -> Table:
    """Return a table with one row per run and tested round, with the attack success rate if there is one.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles, targeted = observations.titles, SUCCESS in observations.measured
    return Table(
        "accuracy",
        (
            *RUN,
            "round",
            "accuracy (fraction)",
            "worst-class accuracy (fraction)",
            "worst class",
            *([metrics.OF_RUNS[SUCCESS].heading] if targeted else []),
            "runs",
        ),
        [
            row(
                *titles.place(run),
                run.seed,
                test.round,
                test.accuracy,
                *_worst({number: value for number, value in enumerate(test.class_accuracy) if value is not None}),
                *([test.success] if targeted else []),
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
