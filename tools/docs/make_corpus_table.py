"""Write the tables of hostile uploads, claims and messages in docs/cross-silo.md.

They are made from the cases in tests/hostile, each of which is sent to a real server; a test keeps them current.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cross-silo.md"
BEGIN, END = "<!-- begin: tools/docs/make_corpus_table.py -->", "<!-- end: tools/docs/make_corpus_table.py -->"
SHOWN = 4  # examples of each kind; all of them are in tests/hostile
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hostile.cases import Case, Group, Outcome, cases  # noqa: E402

HEADS: dict[Group, str] = {"upload": "an upload with", "claim": "a claim of", "message": "a message with"}
WORDS: dict[Outcome, str] = {
    "left out": "left out and reported",
    "ignored": "dropped and reported",
    "taken": "accepted without harm",
    "bounded": "accepted; a defense bounds its effect",
}


def table(group: Group) -> str:
    """One row for each heading and what may happen under it, in the order of the cases."""
    rows: dict[tuple[str, str], list[str]] = {}
    for case in cases(group):
        if case.on_the_wire:
            rows.setdefault((case.heading, what_happens(case)), []).append(case.what.replace("|", "\\|"))
    lines = [f"| {HEADS[group]} | for example | what happens |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {head} | {examples(what)} | {happens} |" for (head, happens), what in rows.items()])


def examples(what: list[str]) -> str:
    """The first few, and how many more there are."""
    more = f"; and {len(what) - SHOWN} more" if len(what) > SHOWN + 1 else ""
    return "; ".join(what[:SHOWN] if more else what) + more


def what_happens(case: Case) -> str:
    """In words."""
    if case.group == "claim" and case.report is not None and case.stands_for is not None and case.stands_for > 20:
        return "counts for 5 times the median claim at most, and is reported"
    order: tuple[Outcome, ...] = ("ignored", "left out", "taken", "bounded")
    return ", or ".join(WORDS[outcome] for outcome in order if outcome in case.outcomes)


def page(text: str) -> str:
    """The page with the tables as they should be."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"{PAGE} must hold the lines {BEGIN} and {END}, between which the tables go")
    tables = "\n\n".join(table(group) for group in HEADS)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
