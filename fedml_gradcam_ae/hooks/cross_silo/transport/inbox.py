"""The messages that wait to be decoded: a bounded number and size for each sender, taken in turns of equal time."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from fedml_gradcam_ae.hooks.cross_silo.refused import Refused

MOST_MESSAGES = 16
HALF_LIFE = 60.0  # seconds after which half of a sender's time is forgotten


@dataclass(frozen=True)
class Arrival:
    """A message as it came.

    Args:
        sender: the client that it is from, or the server, as the message's envelope or the certificate says.
        content: the message, or why it is not kept.
    """

    sender: int
    content: bytes | Refused

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return 0 if isinstance(self.content, Refused) else len(self.content)


class Inbox:
    """Waiting messages, in order for each sender; next is the sender whose messages have taken the least time.

    Args:
        messages: the most that wait for one sender.
        clock: returns seconds.
    """

    def __init__(self, messages: int = MOST_MESSAGES, clock: Callable[[], float] = monotonic) -> None:
        self._messages = messages
        self._clock = clock
        self._halved = clock()
        self._seconds: dict[int, float] = {}
        self._waiting: OrderedDict[int, deque[Arrival]] = OrderedDict()
        self._change = threading.Condition()

    def put(self, arrival: Arrival, most_bytes: int) -> bool:
        """Let a message wait.

        Args:
            arrival: the message.
            most_bytes: the most that may wait for its sender in all; one message may always wait.

        Returns:
            False if there is no room for it.
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
        """The next message, of the waiting sender with the least time spent; None when none comes in time.

        Among equals, the one that has waited longest for its turn is next.
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
        """Say how long one of a sender's messages has taken."""
        with self._change:
            self._forget()
            self._seconds[sender] = self._seconds.get(sender, 0.0) + seconds

    def _forget(self) -> None:
        """Halve what was spent, once for each `HALF_LIFE` that has passed."""
        times = int((self._clock() - self._halved) // HALF_LIFE)
        if times > 0:
            self._halved += times * HALF_LIFE
            self._seconds = {sender: seconds * 0.5**times for sender, seconds in self._seconds.items()}

    def __len__(self) -> int:
        with self._change:
            return sum(len(line) for line in self._waiting.values())
