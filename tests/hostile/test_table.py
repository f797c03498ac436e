"""The tables in docs/cross-silo.md are those that the cases make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hostile.cases import cases

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_page_are_current() -> None:
    program = "import make_corpus_table as made; print(made.written(made.PAGE.read_text()), end='')"
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "tools" / "docs", capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "cross-silo.md").read_text() == made.stdout, "run python tools/docs/make_corpus_table.py"


def test_the_corpus_has_its_size_and_no_case_twice() -> None:
    assert len(cases()) >= 80
    for group in ("upload", "claim", "message"):
        assert len({case.what for case in cases(group)}) == len(cases(group))
