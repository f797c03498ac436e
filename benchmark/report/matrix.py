"""The section of defenses by attacks: accuracy, accuracy gained, attack success, recall and false-positive rate."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.measures.intervals import Estimate, difference, estimate
from benchmark.measures.titles import NO_ATTACK, UNDEFENDED
from benchmark.report.markup import Html, heading, join, section, table, tag
from benchmark.report.names import titled
from benchmark.report.numbers import cell
from benchmark.report.view import View


def matrix(view: View) -> Html:
    """Return the section, with up to five tables for each setting.

    Args:
        view: the benchmark.
    """
    return section(
        "matrix",
        "Defense by attack",
        tag(
            "p",
            f"Means over seeds after round {view.results.rounds} with 95 % bootstrap intervals in brackets (none with "
            "a single seed). Blue is good, orange is bad. Recall and false-positive rate are of the votes, every "
            f"{view.results.vote_every} rounds, and count the clients that the aggregation leaves out; \N{DAGGER} "
            "keeps a single upload, so the clients that it accuses are counted instead. If it accuses all other "
            "clients, as Krum does, a recall of 1 means nothing: see its false-positive rate.",
        ),
        *(_setting(view, setting) for setting in view.observations.titles.settings),
    )


def _setting(view: View, setting: str) -> Html:
    found = view.observations

    def accuracy(attack: str, defense: str) -> Estimate | None:
        return estimate(found.of_run(setting, attack, defense, "accuracy"))

    def gain(attack: str, defense: str) -> Estimate | None:
        one, nothing = (found.of_run(setting, attack, name, "accuracy") for name in (defense, UNDEFENDED))
        return difference(one, nothing)

    def success(attack: str, defense: str) -> Estimate | None:
        return estimate(found.of_run(setting, attack, defense, "attack success rate"))

    def detection(metric: str) -> Callable[[str, str], Estimate | None]:
        return lambda attack, defense: estimate(found.of_defense(setting, attack, defense, metric))

    attacks, defenses = view.ran(setting)
    attacked = [attack for attack in attacks if attack != NO_ATTACK]
    targeted = [attack for attack in attacked if any(success(attack, defense) for defense in defenses)]
    acting = [defense for defense in defenses if defense != UNDEFENDED]
    return join(
        tag("h3", setting) if setting else None,
        _table(view, "Accuracy (fraction)", attacks, defenses, accuracy),
        _table(
            view, "Accuracy gained over no defense, same seeds (fraction)", attacks, acting, gain, low=-0.5, high=0.5
        )
        if UNDEFENDED in defenses
        else None,
        _table(
            view,
            "Attack success rate: share of the test images with the trigger classified as the attack wants (fraction)",
            targeted,
            defenses,
            success,
            low=1.0,
            high=0.0,
        ),
        _table(view, "Recall: share of the attackers left out (fraction)", attacked, acting, detection("recall")),
        _table(
            view,
            "FPR: share of the benign clients left out (fraction)",
            attacks,
            acting,
            detection("FPR"),
            low=1.0,
            high=0.0,
        ),
    )


def _table(
    view: View,
    caption: str,
    attacks: list[str],
    defenses: list[str],
    value: Callable[[str, str], Estimate | None],
    low: float = 0.0,
    high: float = 1.0,
) -> Html | None:
    if not attacks or not defenses:
        return None
    head = [heading("defense"), *(heading(attack) for attack in attacks)]
    rows = [
        [
            heading(titled(view, defense), scope="row"),
            *(cell(value(attack, defense), low=low, high=high, signed=low < 0) for attack in attacks),
        ]
        for defense in defenses
    ]
    return table(caption, head, rows, class_="matrix")
