"""The report in a terminal: one row per attack and defense, means over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from benchmark.measures.defects import known_defect
from benchmark.measures.intervals import estimate
from benchmark.measures.observations import Observations
from benchmark.measures.recommendation import SUCCESS
from benchmark.measures.results import Results
from benchmark.measures.titles import NO_ATTACK
from benchmark.paper import beside, heading

# The headings of the table of a setting; after the accuracy it also has the success rate of targeted attacks.
HEADINGS = ("attack", "defense", "accuracy", "recall", "precision", "false-positive rate", "defense, s per round")


def console(results: Results, observations: Observations) -> str:
    """Return the tables and notes that are printed after a benchmark.

    The notes say what the columns mean, which defects FedML's types have, and how many runs did not finish.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    tables = []
    for setting in observations.titles.settings:
        heading = f"{setting}\n" if setting else ""
        tables.append(heading + format_table(_headings(observations), table_rows(observations, setting)))
    lengths = {run.federation["rounds"] for run in results.runs}
    when = f"round {results.rounds}" if len(lengths) == 1 else "the last round"
    note = (
        f"Accuracy is the test accuracy after {when}; recall, precision and false-positive rate are of "
        f"the clients\nleft out at the votes (every {results.vote_every} rounds), or accused by a rule that keeps a "
        "single upload; all are fractions."
    )
    if _targeted(observations):
        note += (
            "\nThe attack success rate is the share of the test images with the trigger, or of the source class, that "
            "are\nclassified as the attackers want."
        )
    notes = "\n".join([note, *known_defects(results), *unfinished(results)])
    return "\n\n".join([*tables, *paper_tables(results, observations), notes])


def _targeted(observations: Observations) -> list[str]:
    """Return the name of the attack success rate; empty if it was not measured."""
    return [SUCCESS] if SUCCESS in observations.measured else []


def _headings(observations: Observations) -> list[str]:
    return [*HEADINGS[:3], *_targeted(observations), *HEADINGS[3:]]


def table_rows(observations: Observations, setting: str) -> list[list[str]]:
    """Return the rows of one setting's table, as text.

    Args:
        observations: the measured values.
        setting: the title of the setting.

    Returns:
        One row per planned attack and defense, cells as in `HEADINGS`, with the attack success rate after the
        accuracy if there is one; "-" where nothing was measured or a metric is not defined.
    """
    of_runs = ["accuracy", *_targeted(observations)]
    rows = []
    for attack in observations.titles.attacks:
        for defense in observations.titles.defenses:
            place = setting, attack, defense
            if place not in observations.titles.places:  # not planned: `also` has other attacks or defenses
                continue
            cells = [
                *((observations.of_run(*place, name), 3) for name in of_runs),
                *((observations.of_defense(*place, name), 2) for name in ("recall", "precision", "FPR")),
                (observations.of_defense(*place, "seconds per round"), 2),
            ]
            means = [(estimate(by_seed), digits) for by_seed, digits in cells]
            numbers = ["-" if found is None else f"{found.mean:.{digits}f}" for found, digits in means]
            rows.append(["none" if attack == NO_ATTACK else attack, defense, *numbers])
    return rows


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as plain text: the first two columns aligned left, the others right.

    Args:
        headings: of the columns.
        rows: each with one cell per heading.

    Example:
        >>> print(format_table(["attack", "defense", "accuracy"], [["fang", "krum", "0.9"]]))
        attack  defense  accuracy
        ------  -------  --------
        fang    krum          0.9
    """
    widths = [max(len(line[i]) for line in [headings, *rows]) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        pairs = list(zip(cells, widths, strict=True))
        return "  ".join([*(c.ljust(w) for c, w in pairs[:2]), *(c.rjust(w) for c, w in pairs[2:])]).rstrip()

    return "\n".join([line(headings), line(["-" * width for width in widths]), *map(line, rows)])


def paper_tables(results: Results, observations: Observations) -> list[str]:
    """Return one table for each table or figure of the paper that the configuration names: its claims and our values.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    tables = []
    for place, found in groupby(beside(results, observations), key=lambda line: line.claim.place):
        rows: list[list[str]] = []
        lines = list(found)
        metrics = list(dict.fromkeys(metric for line in lines for metric in line.claim.values))
        for claim, same in groupby(lines, key=lambda line: line.claim):
            rows.append([claim.title, "paper", *(_text(claim.values.get(metric)) for metric in metrics)])
            for line in same:
                cells = [line.found.get(metric) for metric in metrics]
                rows.append(["", line.title, *(_text(None if cell is None else cell.mean) for cell in cells)])
        tables.append(format_table([heading(place), "", *metrics], rows))
    return tables


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def known_defects(results: Results) -> list[str]:
    """Return one line for each of FedML's own types in the benchmark that has a known defect.

    Args:
        results: the benchmark.
    """
    types = [chosen["type"] for run in results.runs for chosen in (run.attack, run.defense)]
    found = {name: known_defect(name) for name in dict.fromkeys(types)}
    return [f"{name}, as shipped: {defect}." for name, defect in found.items() if defect]


def unfinished(results: Results) -> list[str]:
    """Return one line with the numbers of failed and missing runs; an empty list if there are none.

    Args:
        results: the benchmark.
    """
    failed = sum(run.state == "failed" for run in results.runs)
    missing = sum(run.state == "missing" for run in results.runs)
    if not failed + missing:
        return []
    return [f"Of {len(results.runs)} runs, {failed} failed (see error.txt in their folders) and {missing} are missing."]
