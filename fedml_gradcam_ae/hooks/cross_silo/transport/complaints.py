"""Reporting what was dropped: by kind, at most so many lines a minute, and without what a terminal would obey."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("fedml_gradcam_ae")

LONGEST = 200
PERIOD = 60.0  # seconds


def printable(text: str, longest: int = LONGEST) -> str:
    r"""Make a text fit for one line of a log.

    Args:
        text: anything, of any length.
        longest: the most characters that are kept.

    Returns:
        The text with line breaks, terminal codes and other invisible characters written as escapes.

    Example:
        >>> printable("two\nlines and \x1b[31mred")
        'two\\nlines and \\x1b[31mred'
        >>> printable("0123456789", longest=5)
        '0123…'
    """
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text[: longest + 1]
    )
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def describe(value: object) -> str:
    """Say what a value is without trusting it: small numbers and short texts as they are, others by their type.

    Example:
        >>> describe(3), describe("x"), describe([1, 2])
        ('3', "'x'", 'a list')
        >>> describe(10**400)
        'a whole number of 1329 bits'
    """
    if type(value) is int:
        return str(value) if value.bit_length() <= 64 else f"a whole number of {value.bit_length()} bits"
    if type(value) in (bool, float, type(None)):
        return repr(value)
    if type(value) is str:
        return repr(printable(value, 60))
    return f"a {type(value).__name__}"


@dataclass
class _Window:
    start: float
    lines: int = 0
    silent: int = 0


class Complaints:
    """Counts what was dropped, by kind, and writes at most a few lines a minute about each kind.

    Args:
        lines: how many lines a minute a kind may have.
        clock: seconds, from any start.
    """

    def __init__(self, lines: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._lines, self._clock = lines, clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def report(self, kind: str, text: str) -> None:
        """Count one, and write its line unless its kind has had enough of them in this minute."""
        with self._lock:
            self.counts[kind] += 1
            now = self._clock()
            self._close_windows(now)
            window = self._windows.setdefault(kind, _Window(now))
            if window.lines < self._lines:
                window.lines += 1
                log.warning("%s", printable(text))
            else:
                window.silent += 1

    def flush(self, everything: bool = False) -> None:
        """Say how many lines were held back in the minutes that are over, or in this one as well."""
        with self._lock:
            self._close_windows(float("inf") if everything else self._clock())

    def _close_windows(self, now: float) -> None:
        for kind, window in list(self._windows.items()):
            if now - window.start >= PERIOD:
                del self._windows[kind]
                if window.silent:
                    log.warning("... and %d more of this kind (%s)", window.silent, kind)
