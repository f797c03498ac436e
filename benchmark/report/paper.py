"""The section that compares the paper's tables with our measured values."""

from __future__ import annotations

from itertools import groupby

from benchmark.measures import metrics
from benchmark.paper import Beside, Claim, beside
from benchmark.paper import heading as title
from benchmark.report.markup import Html, grouped, heading, section, tag
from benchmark.report.numbers import number, seconds
from benchmark.report.view import View


def paper(view: View) -> Html | None:
    """Return the section, with one table for each table or figure of the paper that the configuration names.

    Args:
        view: the benchmark.

    Returns:
        The section; None if the configuration names none.
    """
    lines = beside(view.results, view.observations)
    if not lines:
        return None
    return section(
        "paper",
        "Beside the paper",
        tag(
            "p",
            "The figures of Zheng et al. (ACM TOPS 2025) and ours under the same condition; docs/reproduction.md says "
            "why they differ. Acting: as the defense of the run; watching: beside an undefended run. The paper's AUC "
            "is the balanced accuracy here. Where a line names another network or other images than the paper's, ours "
            "only stand in for them. Our seconds per round are the defense's alone, the paper's are not explained: "
            "only their order can be compared. A dash: not defined, for example the precision where no client is "
            "accused, or the recall of a rule that flags no clients.",
        ),
        *(_table(place, list(found)) for place, found in groupby(lines, key=lambda line: line.claim.place)),
    )


def _table(place: str, lines: list[Beside]) -> Html:
    names = list(dict.fromkeys(name for line in lines for name in line.claim.values))
    groups = [
        (Html(tag("span", claim.title)), _rows(claim, list(found), names))
        for claim, found in groupby(lines, key=lambda line: line.claim)
    ]
    return grouped(title(place), [heading(""), *(heading(name) for name in names)], groups)


def _rows(claim: Claim, lines: list[Beside], names: list[str]) -> list[list[Html]]:
    claimed = [tag("span", f"{claim.values[name]:.{_digits(name)}f}", class_="n") for name in names]
    rows = [[heading("paper", scope="row"), *(tag("td", value) for value in claimed)]]
    for line in lines:
        show = [seconds if name in metrics.OF_DETECTORS else number for name in names]
        cells = [
            tag("td", shown(line.found[name]) if line.how else "") for shown, name in zip(show, names, strict=True)
        ]
        rows.append([heading(line.title, scope="row"), *cells])
    return rows


def _digits(name: str) -> int:
    return 2 if name in metrics.OF_DETECTORS else 3
