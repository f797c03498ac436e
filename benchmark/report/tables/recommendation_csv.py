"""The table recommendation.csv: the candidates for each setting and number of attackers, the best one first."""

from __future__ import annotations

from itertools import product

from benchmark.measures.observations import Observations
from benchmark.measures.recommendation import answer, attackers_in, goals_in
from benchmark.measures.results import Results
from benchmark.report.tables.summary_csv import INTERVAL, interval_cells
from benchmark.report.tables.table import Table, row


def recommendation(results: Results, observations: Observations) -> Table:
    """Return a table with one row per setting, number of attackers and defense that ran against all their attacks.

    The mean is the accuracy in the worst case: in each seed the lowest over the attacks. Under targeted attacks it is
    accuracy x (1 - attack success rate).

    Args:
        results: the benchmark.
        observations: its measured values.
    """
    rows = []
    for setting in observations.titles.settings:
        for goal, attackers in product(goals_in(results, observations, setting), attackers_in(results)):
            for candidate in answer(results, observations, setting, attackers, goal).candidates:
                price = candidate.price
                rows.append(
                    row(
                        setting,
                        goal.title.lower(),
                        attackers,
                        candidate.defense,
                        candidate.among_best,
                        candidate.worst_attack,
                        None if price is None else price.mean,
                        "fraction",
                        *interval_cells(candidate.worst),
                    )
                )
    headings = (
        "setting",
        "attacks",
        "attackers",
        "defense",
        "among the best",
        "worst attack",
        "accuracy lost without attack",
    )
    return Table("recommendation", (*headings, *INTERVAL), rows)
