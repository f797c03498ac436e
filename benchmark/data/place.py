"""Where data sets lie, unless `root:` says otherwise."""

from __future__ import annotations

from pathlib import Path

from benchmark.data.registry import Wanted

DEFAULT = Path(__file__).parents[2] / "data"  # in the checkout, ignored by git


def root_of(data: Wanted) -> Path:
    """The folder to look in; a relative `root:` starts from the working directory."""
    return DEFAULT if data.root is None else Path(data.root).expanduser().absolute()
