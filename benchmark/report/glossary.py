"""The section on metrics, from the docstrings of the functions that compute them."""

from __future__ import annotations

from benchmark.measures import metrics
from benchmark.report.markup import Html, section, tag
from benchmark.report.view import View


def glossary(_view: View) -> Html:
    """Return the section: a list of all registered metrics with their explanations."""
    tables = (metrics.OF_RUNS, metrics.OF_DECISIONS, metrics.OF_SCORES, metrics.OF_DETECTORS)
    entries = [
        part
        for registered in tables
        for metric in registered.values()
        for part in (
            tag("dt", metric.heading, tag("small", f" {metric.better} is better")),
            tag("dd", metric.explanation),
        )
    ]
    return section("metrics", "What the metrics mean", tag("dl", *entries))
