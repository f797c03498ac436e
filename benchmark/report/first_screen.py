"""The first section of the report: the recommended defense, against which attacks and at what cost."""

from __future__ import annotations

from benchmark.measures.recommendation import TARGETED, Answer, Candidate, answer, goals_in
from benchmark.measures.titles import UNDEFENDED
from benchmark.report.markup import Html, heading, join, name, section, table, tag
from benchmark.report.names import defect
from benchmark.report.numbers import cell, number, seconds
from benchmark.report.view import View


def first_screen(view: View) -> Html:
    """Return the section, with a recommendation for each setting.

    Args:
        view: the benchmark.
    """
    parts = []
    for setting in view.observations.titles.settings:
        goals = goals_in(view.results, view.observations, setting)
        for goal in goals:
            words = [setting] if setting else []
            words += [goal.title] if len(goals) > 1 or goal is TARGETED else []
            parts.append(_one(view, answer(view.results, view.observations, setting, goal=goal), ": ".join(words)))
    return section("answer", "Which defense, against which attacks, at what cost?", *parts)


def _one(view: View, found: Answer, title: str) -> Html:
    return join(
        tag("h3", title) if title else None,
        tag("p", *_verdict(found), class_="verdict"),
        tag("ul", *(tag("li", doubt) for doubt in found.doubts), class_="doubts") if found.doubts else None,
        tag("div", _against(found), _price(view, found), class_="pair") if found.candidates else _against(found),
    )


def _verdict(found: Answer) -> list[str | Html]:
    """Return the recommendation in one or two sentences; their numbers name the runs that they come from."""
    if not found.candidates:
        return [tag("strong", "No recommendation"), ": there are no runs to base it on."]
    best, *others = found.candidates
    group = [candidate for candidate in others if candidate.among_best]
    names = ", ".join(candidate.defense for candidate in group)
    seeds = f" over {best.worst.seeds} seed{'s' * (best.worst.seeds != 1)}"
    reached: list[str | Html] = [number(best.worst), f" under {best.worst_attack}", seeds]
    if found.thin:
        return [
            tag("strong", "Too little evidence for a recommendation."),
            " Highest in the worst case, of what was run, is ",
            tag("b", best.defense),
            f" with {found.goal.figure} ",
            *reached,
            ".",
        ]
    if best.defense == UNDEFENDED or any(candidate.defense == UNDEFENDED for candidate in group):
        return [
            tag("strong", "None of these defenses is shown to be better than no defense at all."),
            f" Highest in the worst case is {best.defense} with {found.goal.figure} ",
            *reached,
            f"; not distinguishable from it: {names}." if group else ".",
        ]
    return [
        tag("strong", f"Use {best.defense}."),
        f" Of the defenses here it keeps the highest {found.goal.figure} in the worst case: ",
        *reached,
        ". ",
        *_instead_of_nothing(found),
        *(_equals(best, group, names) if group else _alone(others)),
    ]


def _alone(others: list[Candidate]) -> list[str | Html]:
    """Return what is said of the other defenses if none of them is among the best."""
    return ["Every other defense that was compared is worse with 95 % confidence."] if others else []


def _instead_of_nothing(found: Answer) -> list[str | Html]:
    nothing = [candidate for candidate in found.candidates if candidate.defense == UNDEFENDED]
    return ["Without a defense it would be ", number(nothing[0].worst), ". "] if nothing else []


def _equals(best: Candidate, group: list[Candidate], names: str) -> list[str | Html]:
    timed = [candidate for candidate in [best, *group] if candidate.seconds]
    quickest = min(timed, key=lambda candidate: candidate.seconds.mean if candidate.seconds else 0.0, default=None)
    words: list[str | Html] = [f"Not distinguishable from it: {names}."]
    if quickest is not None and quickest is not best:
        words += [f" The quickest of them is {quickest.defense} (", seconds(quickest.seconds, interval=False)]
        words += [" s per round, accuracy lost without attack ", number(quickest.price, signed=True), ")."]
    return words


def _against(found: Answer) -> Html:
    head = [
        heading(text)
        for text in (
            "attack",
            f"{found.goal.harm[1]} undefended (fraction)",
            "best defense",
            f"{found.goal.figure} (fraction)",
        )
    ]
    rows = [
        [
            heading(entry.attack, scope="row"),
            tag("td", number(entry.harm, signed=True)),
            tag("td", name(entry.best), tag("small", " or ", ", ".join(entry.equals)) if entry.equals else None),
            cell(entry.reached),
        ]
        for entry in found.against
    ]
    return table("Against each attack: the best defense, and those not distinguishable from it", head, rows)


def _price(view: View, found: Answer) -> Html:
    head = [
        heading(text)
        for text in (
            "defense",
            f"worst case, {found.goal.figure} (fraction)",
            "accuracy lost without attack (fraction)",
            "false alarms without attack (fraction)",
            "time (s per round)",
        )
    ]
    rows = [
        [
            heading(
                candidate.defense,
                " \N{BLACK STAR}" if candidate.among_best else None,
                defect(view, candidate.defense),
                scope="row",
            ),
            tag("td", number(candidate.worst), tag("small", " under ", name(candidate.worst_attack))),
            tag("td", number(candidate.price, signed=True)),
            tag("td", number(candidate.false_alarms)),
            tag("td", seconds(candidate.seconds, interval=False)),
        ]
        for candidate in found.candidates
    ]
    return table(
        "Costs (\N{BLACK STAR}: the best, and those not distinguishable from it with 95 % confidence)", head, rows
    )
