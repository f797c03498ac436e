"""The folders in which data sets are looked for."""

from __future__ import annotations

from pathlib import Path

from benchmark.data.registry import Wanted

DEFAULT = Path(__file__).parents[2] / "data"  # without the key `root`: in the checkout, ignored by git


def root_of(data: Wanted) -> Path:
    """Return the folder to look in for a data set.

    Args:
        data: the settings; a relative `root` starts from the working directory.
    """
    return DEFAULT if data.root is None else Path(data.root).expanduser().absolute()
