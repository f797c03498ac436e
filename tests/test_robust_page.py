"""docs/robust.md and the README have the tables that follow from the files in docs/results."""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_has_the_tables_of_its_files(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import make_reproduction
    import make_robust

    try:
        for path, tables in zip(make_robust.PAGES, (24, 2), strict=True):
            text = path.read_text()
            assert make_robust.page(text) == text, "run python docs/make_robust.py"
            assert text.count("<!-- end -->") == len(make_reproduction.BLOCK.findall(text)) == tables
    finally:
        for name in ("make_robust", "make_reproduction"):
            del sys.modules[name]
