"""Reporting what was dropped: by kind, at most so many lines a minute, and without what a terminal would obey."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fedml_gradcam_ae.contract.shown import printable

log = logging.getLogger("fedml_gradcam_ae")

PERIOD = 60.0  # seconds


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
