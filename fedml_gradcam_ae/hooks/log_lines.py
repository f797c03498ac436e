"""The log without FedML's set-up of it: lines of the user's program appear, FedML's dozens per round do not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import fedml

_PACKAGE = str(Path(fedml.__file__).parent)
_undo: list[Callable[[], None]] = []  # what takes each change of the root logger back


def _without_fedml(record: logging.LogRecord) -> bool:
    """Return whether a record is not one of FedML's below its level, WARNING unless the logger `fedml` has another."""
    wanted = logging.getLogger("fedml").level or logging.WARNING
    return record.levelno >= wanted or not record.pathname.startswith(_PACKAGE)


def _seen_before(record: logging.LogRecord) -> bool:
    """Return whether a record is the root logger's own or was seen before that logger's level was lowered."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if logger.level:  # its own level decides, not the root logger's
            return True
        logger = logger.parent
    return record.name == "root" or record.levelno >= logging.WARNING


def show_program_lines() -> None:
    """Print what the program logs with `logging.info` to stderr, as FedML's own set-up would.

    FedML's modules log in the same way, so their lines are filtered: `logging.getLogger("fedml").setLevel("INFO")`
    brings them back. Handlers that the program has set up are kept; loggers with names are as quiet as they were.
    """
    root = logging.getLogger()
    if _without_fedml in root.filters:
        return
    root.addFilter(_without_fedml)
    _undo.append(lambda: root.removeFilter(_without_fedml))
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
        _undo.append(lambda: root.removeHandler(handler))
    if root.level <= logging.INFO:
        return
    for existing in root.handlers:
        existing.addFilter(_seen_before)
        _undo.append(lambda existing=existing: existing.removeFilter(_seen_before))  # type: ignore[misc]
    level = root.level
    root.setLevel(logging.INFO)
    _undo.append(lambda: root.setLevel(level))


def undo() -> None:
    """Leave the log as it was before `show_program_lines`."""
    while _undo:
        _undo.pop()()
