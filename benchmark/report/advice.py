"""The text of `python -m benchmark recommend DIR`: the best defense for each setting and number of attackers."""

from __future__ import annotations

from itertools import product

from benchmark.measures.intervals import Estimate
from benchmark.measures.observations import Observations
from benchmark.measures.recommendation import Answer, answer, attackers_in, goals_in
from benchmark.measures.results import Results
from benchmark.report.console import format_table
from benchmark.report.tiles import doubtful, label

HEADINGS = ("setting", "attacks", "attackers", "defense", "worst case", "under", "lost without attack", "equals")


def advice(results: Results, observations: Observations) -> str:
    """Return a table with the best defense for each setting and number of attackers, and the reasons for doubt.

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    rows, doubts = [], []
    for setting in observations.titles.settings:
        for goal, attackers in product(goals_in(results, observations, setting), attackers_in(results)):
            found = answer(results, observations, setting, attackers, goal)
            if not found.attacks:
                continue  # never planned
            where = f"{goal.title.lower()}, {label(attackers)}"
            doubts += [f"{f'{setting}, ' if setting else ''}{where}: {doubt}" for doubt in found.doubts]
            rows.append([setting or "all", goal.title.lower(), label(attackers), *_cells(found)])
    if not rows:
        return "No attack was run, so that nothing is known about protection."
    notes = [
        "Worst case: in each seed the lowest accuracy over the attacks, then the mean over seeds, with its 95 % "
        "interval; under targeted attacks accuracy x (1 - attack success rate) in place of the accuracy. Fractions.",
        "Equals: not told apart from this defense.",
        "A defense in parentheses is not told apart from no defense at all, or has too few seeds.",
    ]
    if results.sweep:
        seeds = ", ".join(map(str, results.validation_seeds))
        notes.append(f"Settings under `sweep` were chosen on the seeds {seeds}, which no number here comes from.")
    return "\n".join([format_table(HEADINGS, rows), "", *notes, *doubts])


def _cells(found: Answer) -> list[str]:
    if not found.candidates:
        return ["-"] * (len(HEADINGS) - 3)
    best, *others = found.candidates
    name = f"({best.defense})" if doubtful(found) else best.defense
    price = "-" if best.price is None else f"{best.price.mean:+.3f}"
    equals = ", ".join(candidate.defense for candidate in others if candidate.among_best)
    return [name, _interval(best.worst), best.worst_attack, price, equals or "-"]


def _interval(found: Estimate) -> str:
    between = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.mean:.3f}{between}"
