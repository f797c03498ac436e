"""Log lines about what clients do wrong: never so many that a client can fill the log."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger("fedml_gradcam_ae")

MOST = 3


def name_of(sender: object) -> str:
    """A client's name for the log; what is no number may be anything, of any length."""
    return str(sender) if type(sender) is int and abs(sender) < 10**9 else f"({type(sender).__name__})"


class Complaints:
    """At most three lines a round about each client; all that are not in the federation count as one."""

    def __init__(self) -> None:
        self._round = 0
        self._lines: Counter[int | None] = Counter()

    def warn(self, number: int, client: int | None, sender: object, text: str) -> None:
        """Log one.

        Args:
            number: the round.
            client: a member, or None.
            sender: what the message says.
            text: what was wrong, and what became of it; it follows the client's name.
        """
        if number != self._round:
            self._round = number
            self._lines.clear()
        self._lines[client] += 1
        if self._lines[client] <= MOST:
            log.warning("round %d: client %s%s", number, name_of(sender), text)
        elif self._lines[client] == MOST + 1:
            log.warning("round %d: client %s: the rest is not logged before the next round", number, name_of(sender))
