"""The section that names the best defense for each setting and number of attackers, one tile each."""

from __future__ import annotations

from benchmark.measures.recommendation import Answer, Attackers, Goal, answer, attackers_in, goals_in
from benchmark.measures.titles import UNDEFENDED
from benchmark.report.markup import Html, heading, join, section, table, tag
from benchmark.report.names import titled
from benchmark.report.numbers import UNDEFINED, number, shade
from benchmark.report.view import View


def tiles(view: View) -> Html | None:
    """Return the section; None if there is one tile at most, which the first section shows already.

    Args:
        view: the benchmark.
    """
    numbers = attackers_in(view.results)
    rows = [
        [
            heading(join(setting or "all", tag("small", f" {goal.title.lower()}")), scope="row"),
            *(_tile(view, setting, attackers, goal) for attackers in numbers),
        ]
        for setting in view.observations.titles.settings
        for goal in goals_in(view.results, view.observations, setting)
    ]
    if len(rows) * len(numbers) < 2:
        return None
    head = [heading("setting"), *(heading(label(attackers)) for attackers in numbers)]
    return section(
        "tiles",
        "The best defense by number of attackers",
        tag(
            "p",
            "The defense with the highest accuracy in the worst case over the attacks, and that value: in each seed "
            "the lowest, then the mean over seeds. Under targeted attacks it is accuracy x (1 - attack success rate). "
            "A defense in parentheses is not told apart from no defense at all, or has too few seeds.",
        ),
        table("Best worst case (fraction)", head, rows, class_="matrix"),
    )


def label(attackers: Attackers) -> str:
    """Return the heading of a number or a share of attackers.

    Example:
        >>> label(1), label(4), label(0.2)
        ('1 attacker', '4 attackers', '20 % attackers')
    """
    if isinstance(attackers, float):
        return f"{attackers:.0%} attackers".replace("%", " %")
    return f"{attackers} attacker{'s' * (attackers != 1)}"


def doubtful(found: Answer) -> bool:
    """Return whether an answer names no defense that is shown to be better than none.

    Args:
        found: an answer with candidates.
    """
    nothing = [candidate for candidate in found.candidates if candidate.defense == UNDEFENDED]
    return found.thin or not nothing or nothing[0].among_best


def _tile(view: View, setting: str, attackers: Attackers, goal: Goal) -> Html:
    found = answer(view.results, view.observations, setting, attackers, goal)
    if not found.candidates:
        return tag("td", tag("span", UNDEFINED, class_="none", title="no defense has finished under every attack"))
    best = found.candidates[0]
    name = titled(view, best.defense)
    words = ["(", name, ") "] if doubtful(found) else [tag("b", name), " "]
    under = tag("small", f" under {best.worst_attack}")
    return tag("td", *words, number(best.worst), under, style=shade(best.worst.mean))
