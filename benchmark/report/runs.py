"""The sections on runs: those that did not finish, and the configuration of every run."""

from __future__ import annotations

import json

from benchmark.measures.results import RunResult
from benchmark.report.markup import Html, details, join, section, tag
from benchmark.report.view import View

LONGEST_ERROR = 6000  # characters, from the end of the traceback, which names the error


def failures(view: View) -> Html | None:
    """Return the section of failed runs, each with its error, and of missing runs; None if all finished.

    Args:
        view: the benchmark.
    """
    failed = [run for run in view.results.runs if run.state == "failed"]
    missing = [run for run in view.results.runs if run.state == "missing"]
    if not failed and not missing:
        return None
    return section(
        "failures",
        "Runs that did not finish",
        tag("p", f"{len(failed)} of {len(view.results.runs)} runs failed and {len(missing)} are missing."),
        *(_failed(run) for run in failed),
        tag("p", "Missing: ", *_codes([run.folder for run in missing])) if missing else None,
    )


def _failed(run: RunResult) -> Html:
    error = (run.error or "").strip()
    last = error.splitlines()[-1] if error else "no message"
    return details(join(tag("code", run.folder), ": ", last), tag("pre", error[-LONGEST_ERROR:]))


def runs(view: View) -> Html:
    """Return the section with one folded entry per run: its config.json, versions included.

    Args:
        view: the benchmark.
    """
    return section(
        "runs",
        "Every run",
        tag(
            "p",
            f"{len(view.results.finished)} of {len(view.results.runs)} runs finished. The numbers of this report name "
            "their runs when they are pointed at, and the tables in results/*.csv do in the column runs.",
        ),
        details(f"{len(view.results.runs)} configurations", *(_entry(run) for run in view.results.runs)),
    )


def _entry(run: RunResult) -> Html:
    config = json.dumps(run.config, indent=1, sort_keys=True) if run.config else "not started"
    return details(join(tag("code", run.folder), f" ({run.state})"), tag("pre", config))


def _codes(names: list[str]) -> list[Html]:
    return [join(tag("code", name), " ") for name in names]
