"""The tables detection.csv and detection-by-round.csv: how well detectors separate attackers from benign clients."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.measures import metrics
from benchmark.measures.detector_figures import DECISIONS, at_votes, averages, score_averages
from benchmark.measures.judgments import Judgment
from benchmark.measures.observations import Observations, detectors
from benchmark.measures.results import Results
from benchmark.report.tables.table import DETECTOR, Cell, Table, row


def detection(results: Results, observations: Observations) -> Table:
    """Return a table with two rows per run and detector: means over the votes, and means over all rounds.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    return Table(
        "detection",
        (*DETECTOR, "report shows", "over", "rounds", *_headings(), "runs"),
        [
            row(
                *titles.place(run),
                run.seed,
                role,
                detector,
                observations.decision(role, detector),
                over,
                len(chosen),
                *_figures(chosen),
                run.folder,
            )
            for run in results.finished
            for role, detector, judgments in detectors(run, titles)
            for over, chosen in (("votes", at_votes(judgments, results.vote_every)), ("rounds", judgments))
        ],
    )


def detection_by_round(results: Results, observations: Observations) -> Table:
    """Return a table with one row per run, detector and round.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    titles = observations.titles
    return Table(
        "detection-by-round",
        (*DETECTOR, "round", "vote", *_headings(), "threshold (score)", "runs"),
        [
            row(
                *titles.place(run),
                run.seed,
                role,
                detector,
                judgment.round,
                judgment.round % results.vote_every == 0,
                *_figures([judgment]),
                judgment.threshold,
                run.folder,
            )
            for run in results.finished
            for role, detector, judgments in detectors(run, titles)
            for judgment in judgments
        ],
    )


def _headings() -> list[str]:
    return [
        *(f"{decision}: {metric.heading}" for decision in DECISIONS for metric in metrics.OF_DECISIONS.values()),
        *(metric.heading for metric in metrics.OF_SCORES.values()),
    ]


def _figures(judgments: Sequence[Judgment]) -> list[Cell]:
    return [
        *(value for decision in DECISIONS for value in averages(judgments, decision).values()),
        *score_averages(judgments).values(),
    ]
