"""Files that several processes may write at once and that never exist incomplete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that appears under its name only when it is complete.

    Args:
        path: of the file.
        write: called with the path of a temporary file in the same folder, which it writes.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented.

    Raises:
        ValueError: for NaN and infinity, which JSON has no numbers for.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
