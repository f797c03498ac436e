"""Queue of messages to decode, bounded in number and size for each sender, with fair shares of decoding time."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from fedml_gradcam_ae.hooks.cross_silo.refused import Refused

MOST_MESSAGES = 16  # Maximum number of waiting messages of one sender.
HALF_LIFE = 60.0  # Seconds after which the recorded decoding times of all senders are halved.


@dataclass(frozen=True)
class Arrival:
    """Message as it arrived.

    Args:
        sender: the id of the sender (a client, or the server), as the gRPC request or the certificate says.
        content: the message's bytes, or the reason why they are not kept.
    """

    sender: int
    content: bytes | Refused

    @property
    def size(self) -> int:
        """Return the number of bytes held."""
        return 0 if isinstance(self.content, Refused) else len(self.content)


class Inbox:
    """Queue of waiting messages, in order for each sender.

    The next message is always one of the sender whose messages have taken the least decoding time.

    Args:
        messages: the maximum number of waiting messages of one sender.
        clock: function that returns seconds, from any start.
    """

    def __init__(self, messages: int = MOST_MESSAGES, clock: Callable[[], float] = monotonic) -> None:
        self._messages = messages
        self._clock = clock
        self._halved = clock()
        self._seconds: dict[int, float] = {}
        self._waiting: OrderedDict[int, deque[Arrival]] = OrderedDict()
        self._change = threading.Condition()

    def put(self, arrival: Arrival, most_bytes: int) -> bool:
        """Add a message to the queue.

        Args:
            arrival: the message.
            most_bytes: the most bytes that may wait for its sender; a single message may always wait.

        Returns:
            Whether there was room for it.
        """
        with self._change:
            line = self._waiting.setdefault(arrival.sender, deque())
            held = sum(each.size for each in line)
            if len(line) >= self._messages or (line and held + arrival.size > most_bytes):
                return False
            line.append(arrival)
            self._change.notify()
            return True

    def get(self, timeout: float) -> Arrival | None:
        """Remove and return the next message, one of the waiting sender with the least time spent.

        Among senders with equal times, the one that has waited longest for its turn is next.

        Args:
            timeout: the longest wait in seconds.

        Returns:
            The message, or None if none comes in time.
        """
        with self._change:
            if not self._waiting and not self._change.wait_for(lambda: bool(self._waiting), timeout):
                return None
            self._forget()
            sender = min(self._waiting, key=lambda each: self._seconds.get(each, 0.0))
            line = self._waiting.pop(sender)
            arrival = line.popleft()
            if line:
                self._waiting[sender] = line
            return arrival

    def spent(self, sender: int, seconds: float) -> None:
        """Record how many seconds one of a sender's messages has taken."""
        with self._change:
            self._forget()
            self._seconds[sender] = self._seconds.get(sender, 0.0) + seconds

    def _forget(self) -> None:
        """Halve the recorded times, once for each `HALF_LIFE` that has passed."""
        times = int((self._clock() - self._halved) // HALF_LIFE)
        if times > 0:
            self._halved += times * HALF_LIFE
            self._seconds = {sender: seconds * 0.5**times for sender, seconds in self._seconds.items()}

    def __len__(self) -> int:
        with self._change:
            return sum(len(line) for line in self._waiting.values())
