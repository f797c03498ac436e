"""The messages that wait to be decoded: a bounded number and size for each sender, taken in turns."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from fedml_gradcam_ae.hooks.cross_silo.refused import Refused

MOST_MESSAGES = 16


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
    """Waiting messages, in order for each sender, and the senders in turns.

    Args:
        messages: the most that wait for one sender.
    """

    def __init__(self, messages: int = MOST_MESSAGES) -> None:
        self._messages = messages
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
        """The next message, of another sender than the last one if any waits; None when none comes in time."""
        with self._change:
            if not self._waiting and not self._change.wait_for(lambda: bool(self._waiting), timeout):
                return None
            sender, line = self._waiting.popitem(last=False)
            arrival = line.popleft()
            if line:
                self._waiting[sender] = line
            return arrival

    def __len__(self) -> int:
        with self._change:
            return sum(len(line) for line in self._waiting.values())
