"""HTML in Python: text is escaped unless it is marked as HTML, so that no error message can break the page."""

from __future__ import annotations

import re
from html import escape

VOID = {"br", "img", "meta"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | None


def tag(element: str, /, *children: Child, **attributes: str | None) -> Html:
    """An element; `class_` stands for class, an attribute of None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{element}{given}>" if element in VOID else f"<{element}{given}>{join(*children)}</{element}>")


def join(*children: Child) -> Html:
    """One after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children if child))


def section(identifier: str, title: str, *children: Child) -> Html:
    """A part of the report with its heading; `identifier` is what links lead to."""
    return tag("section", tag("h2", title), *children, id=identifier)


def table(caption: str, head: list[Html], rows: list[list[Html]], class_: str | None = None) -> Html:
    """A table that scrolls by itself where it is wider than the page; cells bring their own th or td."""
    return _scrolling(caption, head, [tag("tbody", *(tag("tr", *cells) for cells in rows))], class_)


def grouped(caption: str, head: list[Html], groups: list[tuple[Html, list[list[Html]]]]) -> Html:
    """The same with a line above each group of rows that says what they have in common."""
    bodies = [
        tag(
            "tbody",
            tag("tr", tag("th", tag("span", title), colspan=str(len(head)), scope="rowgroup", class_="group")),
            *(tag("tr", *cells) for cells in rows),
        )
        for title, rows in groups
    ]
    return _scrolling(caption, head, bodies, None)


def _scrolling(caption: str, head: list[Html], bodies: list[Html], class_: str | None) -> Html:
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), *bodies, class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def heading(*children: Child, scope: str = "col") -> Html:
    """The head of a column, or with scope="row" of a row."""
    return tag(
        "th", *(child if isinstance(child, Html) or not child else name(child) for child in children), scope=scope
    )


def name(text: str) -> Html:
    """Text that may be broken after an underscore or a colon, as long names on a phone must be."""
    return Html(re.sub("([_:])", r"\1<wbr>", escape(text)))


def details(summary: Child, *children: Child) -> Html:
    """Folded away until it is clicked."""
    return tag("details", tag("summary", summary), *children)
