"""Where data sets lie, unless `root:` says otherwise."""

from __future__ import annotations

from pathlib import Path

from benchmark.data.settings import Data

DEFAULT = Path(__file__).parents[2] / "data"  # in the checkout, ignored by git


def root_of(data: Data) -> Path:
    """The folder to look in; a relative `root:` starts from the working directory."""
    return DEFAULT if data.root is None else Path(data.root).expanduser().absolute()
