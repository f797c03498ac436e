"""Rate-limited reports of dropped messages, by kind and without control characters that a terminal would obey."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fedml_gradcam_ae.contract.shown import printable

log = logging.getLogger("fedml_gradcam_ae")

PERIOD = 60.0  # Length in seconds of the window in which the lines of a kind are limited.


@dataclass
class _Window:
    """Number of log lines that were written and held back for one kind since `start`, in seconds."""

    start: float
    lines: int = 0
    silent: int = 0


class Complaints:
    """Counter of dropped messages by kind, which logs at most a few lines a minute about each kind.

    Args:
        lines: the maximum number of log lines a minute for one kind.
        clock: function that returns seconds, from any start.

    Attributes:
        counts: the number of reports by kind.
    """

    def __init__(self, lines: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._lines, self._clock = lines, clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def report(self, kind: str, text: str) -> None:
        """Count one report, and log it unless its kind has reached its limit for this minute.

        Args:
            kind: the kind of problem.
            text: the line to log; control characters are made harmless.
        """
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
        """Log how many lines of each kind were held back in minutes that are over.

        Args:
            everything: whether to include the current minute.
        """
        with self._lock:
            self._close_windows(float("inf") if everything else self._clock())

    def _close_windows(self, now: float) -> None:
        for kind, window in list(self._windows.items()):
            if now - window.start >= PERIOD:
                del self._windows[kind]
                if window.silent:
                    log.warning("... and %d more of this kind (%s)", window.silent, kind)
