"""Row headings of defenses, with the notes that their results need."""

from __future__ import annotations

from benchmark.measures.defects import known_defect
from benchmark.measures.titles import UNDEFENDED
from benchmark.report.markup import Html, join, name, tag
from benchmark.report.view import View


def titled(view: View, defense: str) -> Html:
    """Return the title of a defense with its notes.

    The notes are a dagger if the defense never keeps more than one upload, and its known defect.

    Args:
        view: the benchmark.
        defense: its title.
    """
    follows_one = defense != UNDEFENDED and view.observations.accuses("acting", defense)
    return join(name(defense), " \N{DAGGER}" if follows_one else None, defect(view, defense))


def defect(view: View, defense: str) -> Html | None:
    """Return the known defect of a defense, marked up as a note; None if it has none.

    Args:
        view: the benchmark.
        defense: its title.
    """
    found = known_defect(view.observations.titles.defense_type(defense))
    return tag("small", "as shipped: ", found, class_="defect") if found else None
