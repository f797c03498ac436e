"""docs/research/robust.md has the tables that follow from the files in results/published."""

import sys
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "tools" / "docs"


def test_the_page_has_the_tables_of_its_files(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import make_reproduction
    import make_robust

    try:
        text = make_robust.PAGE.read_text()
        assert make_robust.page(text) == text, "run python tools/docs/make_robust.py"
        assert text.count("<!-- end -->") == len(make_reproduction.BLOCK.findall(text)) == 21
    finally:
        for name in ("make_robust", "make_reproduction"):
            del sys.modules[name]
