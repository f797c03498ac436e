"""The page of the report: all sections in order, a table of contents and the style, in one self-contained file."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.report.curves import curves
from benchmark.report.detection import detection
from benchmark.report.first_screen import first_screen
from benchmark.report.gallery import gallery
from benchmark.report.glossary import glossary
from benchmark.report.markup import Html, tag
from benchmark.report.matrix import matrix
from benchmark.report.paper import paper
from benchmark.report.roc import roc
from benchmark.report.runs import failures, runs
from benchmark.report.runtime import runtime
from benchmark.report.scores import scores
from benchmark.report.tiles import tiles
from benchmark.report.view import View

# The sections in the order of the page; a section that returns None is left out.
SECTIONS = (
    first_screen,
    tiles,
    matrix,
    paper,
    curves,
    detection,
    scores,
    roc,
    gallery,
    runtime,
    failures,
    runs,
    glossary,
)
# The style sheet that is written into the page.
STYLE = Path(__file__).with_name("style.css")


def page(view: View) -> str:
    """Return the content of report.html.

    Args:
        view: the benchmark.
    """
    parts = [part for make in SECTIONS if (part := make(view))]
    results = view.results
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", results.name),
            tag(
                "p",
                f"{len(results.finished)} of {len(results.runs)} simulations finished, {results.rounds} rounds each. "
                "Brackets hold 95 % intervals over seeds.",
            ),
        ),
        tag("main", parts[0], tag("nav", *(_link(part) for part in parts[1:]), aria_label="Contents"), *parts[1:]),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{results.name}: benchmark report"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _link(part: Html) -> Html:
    found = re.match(r'<section id="([^"]+)"><h2>(.*?)</h2>', part)
    assert found, "every part is a section with a heading"
    return tag("a", Html(found[2]), href=f"#{found[1]}")
