"""HTML in Python. Text is escaped unless it is marked as HTML, so that no error message can break the page."""

from __future__ import annotations

import re
from html import escape

# Elements without content and end tag.
VOID = {"br", "img", "meta"}


class Html(str):
    """Text that is already HTML and is not escaped again."""

    __slots__ = ()


Child = str | None


def tag(element: str, /, *children: Child, **attributes: str | None) -> Html:
    """Return an HTML element.

    Args:
        element: its name.
        children: its content; plain text is escaped, None is left out.
        attributes: an underscore stands for a hyphen, `class_` for class; None leaves the attribute out.

    Example:
        >>> tag("td", "1 < 2", class_="n")
        '<td class="n">1 &lt; 2</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{element}{given}>" if element in VOID else f"<{element}{given}>{join(*children)}</{element}>")


def join(*children: Child) -> Html:
    """Concatenate children; plain text is escaped, None is left out."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children if child))


def section(identifier: str, title: str, *children: Child) -> Html:
    """Return a section of the report with its heading.

    Args:
        identifier: the id that links refer to.
        title: the heading.
        children: the content.
    """
    return tag("section", tag("h2", title), *children, id=identifier)


def table(caption: str, head: list[Html], rows: list[list[Html]], class_: str | None = None) -> Html:
    """Return a table that scrolls horizontally where it is wider than the page.

    Args:
        caption: of the table.
        head: th elements of the columns.
        rows: lists of th or td elements.
        class_: the CSS class.
    """
    return _scrolling(caption, head, [tag("tbody", *(tag("tr", *cells) for cells in rows))], class_)


def grouped(caption: str, head: list[Html], groups: list[tuple[Html, list[list[Html]]]]) -> Html:
    """Return a table with a title line above each group of rows.

    Args:
        caption: of the table.
        head: th elements of the columns.
        groups: the title of each group and its rows, lists of th or td elements.
    """
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
    """Return the heading of a column or of a row.

    Args:
        children: the content; plain text may be wrapped as in `name`.
        scope: "col", or "row" for the heading of a row.
    """
    return tag(
        "th", *(child if isinstance(child, Html) or not child else name(child) for child in children), scope=scope
    )


def name(text: str) -> Html:
    """Return text that can be wrapped after underscores and colons, for long names on narrow screens.

    Args:
        text: not HTML.
    """
    return Html(re.sub("([_:])", r"\1<wbr>", escape(text)))


def details(summary: Child, *children: Child) -> Html:
    """Return content that is folded until its summary is clicked.

    Args:
        summary: what is always shown.
        children: the folded content.
    """
    return tag("details", tag("summary", summary), *children)
