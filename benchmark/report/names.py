"""The name of a defense at the head of its row, with what one must know about it."""

from __future__ import annotations

from benchmark.measures.defects import known_defect
from benchmark.measures.titles import UNDEFENDED
from benchmark.report.markup import Html, join, name, tag
from benchmark.report.view import View


def titled(view: View, defense: str) -> Html:
    """With a dagger if it follows a single client, and its known defect."""
    follows_one = defense != UNDEFENDED and view.observations.accuses("acting", defense)
    return join(name(defense), " \N{DAGGER}" if follows_one else None, defect(view, defense))


def defect(view: View, defense: str) -> Html | None:
    """What is known to be wrong with one of FedML's own types."""
    found = known_defect(view.observations.titles.defense_type(defense))
    return tag("small", "as shipped: ", found, class_="defect") if found else None
