"""Rate limit on the messages of each sender."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Buckets:
    """Token bucket for each sender.

    Args:
        rate: the messages per second that a sender may send in the long run.
        burst: the number of messages that may come at once.
        clock: function that returns seconds, from any start.

    Example:
        >>> now = 0.0
        >>> buckets = Buckets(rate=1.0, burst=2, clock=lambda: now)
        >>> [buckets.take("client 1") for _ in range(3)], buckets.take("client 2")
        ([True, True, False], True)
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: dict[Hashable, tuple[float, float]] = {}

    def take(self, sender: Hashable) -> bool:
        """Take one token of a sender.

        Returns:
            Whether there was one.
        """
        now = self._clock()
        tokens, since = self._left.get(sender, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        enough = tokens >= 1
        self._left[sender] = (tokens - 1 if enough else tokens, now)
        return enough
