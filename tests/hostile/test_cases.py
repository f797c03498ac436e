"""The cases of hostile uploads, claims and messages; tests/test_documentation.py compares the page with them."""

from __future__ import annotations

from hostile.cases import cases


def test_the_corpus_has_its_size_and_no_case_twice() -> None:
    assert len(cases()) >= 80
    for group in ("upload", "claim", "message"):
        assert len({case.what for case in cases(group)}) == len(cases(group))
