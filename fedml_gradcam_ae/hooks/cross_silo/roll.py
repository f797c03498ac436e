"""Which clients a server has asked, which have answered, and what of all that they say counts.

No network, no thread and no clock: the server tells what happened, and is told what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

FREE_REPEATS = 3
PAUSE_SECONDS = 2.0


class Phase(Enum):
    """Where a run is: before its first round, in a round, or after the last one."""

    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


class Do(Enum):
    """What the server is to do after it was told something."""

    NOTHING = "nothing"
    START = "start the first round"
    ASK = "send this client the model of the round"
    DISMISS = "tell this client to end"
    AGGREGATE = "end the round with the uploads that are here"
    STOP = "end: no client is left"


@dataclass
class Client:
    """What the server knows of one client.

    Attributes:
        seen: it has ever said that it is there.
        online: it has, and neither ended nor proved unreachable since.
        ended: it has said that it ended.
        called: the server has asked whether it is there, and it has not answered.
        ever_called: the same, answered or not.
        process: names its process, where the client runs under the plug-in.
        owed: the rounds whose model its process was sent and has not answered, in order.
        received: how many models its process was sent; FedML's own client ends after so many.
        repeats: how often it was sent the model of this round.
        asked_at: when, the last time, in seconds.
    """

    seen: bool = False
    online: bool = False
    ended: bool = False
    called: bool = False
    ever_called: bool = False
    process: str | None = None
    owed: list[int] = field(default_factory=list)
    received: int = 0
    repeats: int = 0
    asked_at: float = 0.0


class Roll:
    """The clients of a run over its rounds.

    Args:
        members: every client that may take part.
        minimum: how many uploads a round needs.
    """

    def __init__(self, members: Sequence[int], minimum: int) -> None:
        self.clients = {int(member): Client() for member in members}
        self.minimum = minimum
        self.phase = Phase.WAITING
        self.number = 0
        self.chosen: list[int] = []
        self.uploads: dict[int, Any] = {}

    def member(self, sender: object) -> int | None:
        """The client that a message says it is from, or None if there is none; `sender` may be anything."""
        return sender if type(sender) is int and sender in self.clients else None

    def choose(self, number: int, chosen: Sequence[int]) -> None:
        """Name the clients of a round, from 1 on, whose uploads are all still to come."""
        self.number, self.chosen, self.uploads = number, list(chosen), {}
        for client in self.clients.values():
            client.repeats = 0

    def start(self) -> None:
        """The first round begins."""
        self.phase = Phase.RUNNING

    def end(self) -> None:
        """The last round is over; a client that has gone without a word has ended."""
        self.phase = Phase.OVER

    def to_ask(self) -> list[int]:
        """The clients of the round that can take a model now: one that was called answers the call first."""
        return [client for client in self.chosen if not self.clients[client].called and not self.clients[client].ended]

    def to_dismiss(self) -> list[int]:
        """The clients that have to hear of the end of the run."""
        return [
            name
            for name, client in self.clients.items()
            if not client.ended and (client.online or client.called or name in self.chosen)
        ]

    def called(self, client: int) -> None:
        """The server asks a client whether it is there."""
        self.clients[client].called = self.clients[client].ever_called = True

    def asked(self, client: int, now: float) -> None:
        """The model of the round is on its way to a client.

        Args:
            client: which.
            now: seconds, from any beginning.
        """
        known = self.clients[client]
        known.owed.append(self.number)
        known.received += 1
        known.repeats += 1
        known.asked_at = now

    def withdrawn(self, client: int, number: int | None) -> None:
        """The model of a round, asked for before, did not get to the client."""
        known = self.clients[client]
        if number in known.owed:
            known.owed.remove(number)
            known.received -= 1

    def undelivered(self, client: int, number: int | None) -> Do:
        """A message did not get to a client; `number` is the round of the model in it, if there is one."""
        known = self.clients[client]
        # One from before the client was heard of again says nothing about now.
        if number in known.owed if number is not None else known.called:
            known.online = known.called = False
        self.withdrawn(client, number)
        known.ended |= self.phase is Phase.OVER
        return self.settle()

    def online(self, client: int, process: str | None, now: float) -> Do:
        """A client says that it is there: it has started, or was called.

        Args:
            client: which.
            process: names its process, if it does.
            now: seconds, from any beginning.
        """
        known = self.clients[client]
        if known.repeats >= FREE_REPEATS and now - known.asked_at < PAUSE_SECONDS and self.phase is Phase.RUNNING:
            return Do.NOTHING  # no process starts so fast, and each model sent costs the server time
        same = process is not None and process == known.process
        known.seen = known.online = True
        known.ended, known.called, known.process = False, False, process
        if not same:
            # What another process owed will never come.
            known.owed, known.received = [], 0
        if self.phase is Phase.OVER:
            return Do.DISMISS
        if self.phase is Phase.WAITING:
            everyone = bool(self.chosen) and all(self.clients[member].online for member in self.chosen)
            return Do.START if everyone else Do.NOTHING
        if client not in self.chosen or client in self.uploads or self.number in known.owed:
            return Do.NOTHING
        return Do.ASK

    def was_restarted(self, client: int, process: str | None) -> bool:
        """Whether a client that says that it is there must be a new process of one that was there before."""
        known = self.clients[client]
        if process is not None and known.process is not None:
            return process != known.process
        return known.online and not known.ever_called

    def finished(self, client: int) -> Do:
        """A client says that it has ended."""
        known = self.clients[client]
        if known.ended:
            return Do.NOTHING
        known.online = known.called = False
        known.ended, known.owed = True, []
        return self.settle()

    def may_finish(self, client: int) -> bool:
        """Whether a client can have ended: it was there, was called, or is to end."""
        known = self.clients[client]
        return known.seen or known.called or self.phase is Phase.OVER

    def upload(self, client: int | None, number: object, content: Any) -> str | None:
        """Take an upload.

        Args:
            client: from `member`.
            number: the round that it says it is for, None if it does not say.
            content: the upload.

        Returns:
            Why it does not count, or None if it does.
        """
        if self.phase is not Phase.RUNNING:
            return "no round is running"
        if client is None:
            return "the client is not in the federation"
        known = self.clients[client]
        if number is None:
            # A client answers what it was sent one by one and in order.
            if not known.owed:
                return "it was not asked for, or has come before"
            owed = known.owed.pop(0)
        elif type(number) is not int:
            return f"its round number must be a whole number, found {type(number).__name__}"
        elif number not in known.owed:
            return "it was not asked for, or has come before"
        else:
            owed = number
            known.owed = known.owed[known.owed.index(number) + 1 :]
        if owed != self.number:
            return f"it is for an earlier round, {owed}"
        self.uploads[client] = content
        return None

    def time_is_over(self) -> Do:
        """The time of the phase is over."""
        if self.phase is Phase.OVER:
            return Do.STOP
        if len(self.here()) < self.minimum:
            return Do.NOTHING
        return Do.START if self.phase is Phase.WAITING else Do.AGGREGATE

    def here(self) -> list[int]:
        """The clients of the round that have answered, or before the first round, that are there."""
        if self.phase is Phase.WAITING:
            return [client for client in self.chosen if self.clients[client].online]
        return [client for client in self.chosen if client in self.uploads]

    def missing(self) -> list[int]:
        """The others."""
        here = self.here()
        return [client for client in self.chosen if client not in here]

    def can_be_enough(self) -> bool:
        """Whether the round can get its minimum of uploads without a client that ended being started again."""
        able = [client for client in self.chosen if client in self.uploads or not self.clients[client].ended]
        return len(able) >= self.minimum

    def settle(self) -> Do:
        """What to do now that something has changed."""
        if self.phase is Phase.OVER:
            return Do.STOP if not self.to_dismiss() else Do.NOTHING
        answered = all(client in self.uploads or self.clients[client].ended for client in self.chosen)
        if self.phase is Phase.RUNNING and answered and len(self.uploads) >= self.minimum:
            return Do.AGGREGATE
        return Do.STOP if all(client.ended for client in self.clients.values()) else Do.NOTHING
