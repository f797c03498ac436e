"""State machine of a cross-silo run: which clients were asked, which have answered, and which messages count.

It uses no network, no thread and no clock. The server reports what happened, and the methods return what to do. A
client is *called* when the server requests its status, and *asked* when it is sent the model of a round; from then on
it *owes* an upload for that round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

FREE_REPEATS = 3  # Number of times that a client gets the model of one round without a pause.
PAUSE_SECONDS = 2.0  # After that, a client does not get the model again within this time.


class Phase(Enum):
    """Phase of a run: before its first round, in a round, or after the last round."""

    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


class Do(Enum):
    """Instruction to the server."""

    NOTHING = "nothing"
    START = "start the first round"
    ASK = "send this client the model of the round"
    DISMISS = "tell this client to end"
    AGGREGATE = "end the round with the uploads that are here"
    STOP = "end the process: no client is left, or the last wait is over"


@dataclass
class Client:
    """The server's knowledge of one client.

    Attributes:
        seen: whether the client has ever reported as online.
        online: whether it has reported as online, and neither ended nor been unreachable since.
        ended: whether it has reported that it ended, or is taken for ended after the last round.
        called: whether the server has requested its status and has no answer yet.
        ever_called: whether the server has ever requested its status.
        echoes: whether it may report twice: when it starts, and in answer to the request that waited for it.
        process: the name of its process, if the client runs under the plug-in; else None.
        owed: the rounds whose model its process was sent and has not answered with an upload, in order.
        received: the number of models that its process was sent; FedML's own client ends after `comm_round` models.
        repeats: the number of times that it was sent the model of this round.
        asked_at: the time at which it was last sent a model, in seconds.
    """

    seen: bool = False
    online: bool = False
    ended: bool = False
    called: bool = False
    ever_called: bool = False
    echoes: bool = False
    process: str | None = None
    owed: list[int] = field(default_factory=list)
    received: int = 0
    repeats: int = 0
    asked_at: float = 0.0


class Roll:
    """Clients of a run over its rounds.

    The order of calls: `choose` the clients of the first round, then report `online` clients until a method returns
    `Do.START`; `start`. In each round `choose`, send the model to the clients in `to_ask` and report each as `asked`;
    report every `upload`, then `settle`, until a method returns `Do.AGGREGATE`. After the last round `end`, dismiss the
    clients in `to_dismiss` and report those that `finished`, until a method returns `Do.STOP`. A timer calls
    `time_is_over` when the time limit of a phase has passed.

    Args:
        members: the ids of all clients that may take part.
        minimum: the number of uploads that a round needs.

    Attributes:
        clients: the knowledge of each client, by id.
        phase: the phase of the run.
        number: the round, counted from 1.
        chosen: the clients of the round.
        uploads: the uploads of the round that count, by client id.

    Example:
        Two clients, of which the second ends without an upload:

        >>> roll = Roll(members=[1, 2], minimum=1)
        >>> roll.choose(number=1, chosen=[1, 2])
        >>> roll.online(1, process=None, now=0.0), roll.online(2, process=None, now=0.0)
        (<Do.NOTHING: 'nothing'>, <Do.START: 'start the first round'>)
        >>> roll.start()
        >>> for client in roll.to_ask():
        ...     roll.asked(client, now=0.0)
        >>> roll.upload(1, number=1, content="a model"), roll.settle()
        (None, <Do.NOTHING: 'nothing'>)
        >>> roll.upload(1, number=1, content="another model")
        'it was not asked for, or has come before'
        >>> roll.finished(2), roll.uploads
        (<Do.AGGREGATE: 'end the round with the uploads that are here'>, {1: 'a model'})
    """

    def __init__(self, members: Sequence[int], minimum: int) -> None:
        self.clients = {int(member): Client() for member in members}
        self.minimum = minimum
        self.phase = Phase.WAITING
        self.number = 0
        self.chosen: list[int] = []
        self.uploads: dict[int, Any] = {}

    def member(self, sender: object) -> int | None:
        """Return the client with the id `sender`, or None if there is none.

        Args:
            sender: the id that a message claims; may be an arbitrary object.
        """
        return sender if type(sender) is int and sender in self.clients else None

    def choose(self, number: int, chosen: Sequence[int]) -> None:
        """Set the clients of a new round and discard the uploads of the round before.

        Args:
            number: the round, counted from 1.
            chosen: the ids of its clients.
        """
        self.number, self.chosen, self.uploads = number, list(chosen), {}
        for client in self.clients.values():
            client.repeats = 0

    def start(self) -> None:
        """Enter the phase `RUNNING`, at the beginning of the first round."""
        self.phase = Phase.RUNNING

    def end(self) -> None:
        """Enter the phase `OVER`, after the last round; from now on an unreachable client counts as ended."""
        self.phase = Phase.OVER

    def to_ask(self) -> list[int]:
        """Return the clients to send the model to when the round starts.

        Left out are clients that have ended, and clients that were called and have not answered. Both are sent the
        model when they report: `online` then returns `Do.ASK`.
        """
        return [client for client in self.chosen if not self.clients[client].called and not self.clients[client].ended]

    def asked(self, client: int, now: float) -> None:
        """Record that the model of the round was sent to a client, which owes an upload for it from now on.

        Args:
            client: the client's id.
            now: the time in seconds, from any start.
        """
        known = self.clients[client]
        known.owed.append(self.number)
        known.received += 1
        known.repeats += 1
        known.asked_at = now

    def withdrawn(self, client: int, number: int | None) -> None:
        """Undo `asked` for a model that was not sent after all, or did not reach the client.

        Args:
            client: the client's id.
            number: the round of the model; None has no effect.
        """
        known = self.clients[client]
        if number in known.owed:
            known.owed.remove(number)
            known.received -= 1

    def called(self, client: int, echoes: bool = False) -> None:
        """Record that the server requested a client's status.

        Args:
            client: the client's id.
            echoes: whether the transport keeps the request for a client that is only starting, which then reports
                twice.
        """
        known = self.clients[client]
        known.called, known.ever_called, known.echoes = True, True, echoes

    def undelivered(self, client: int, number: int | None) -> Do:
        """Record that a message did not reach a client, and return what to do.

        If it holds the model of a round, the client does not owe the upload. After the last round an unreachable client
        counts as ended.

        Args:
            client: the client's id.
            number: the round of the model in the message; None if it holds no model.
        """
        known = self.clients[client]
        # A message sent before the client reported again does not show that the client is unreachable now.
        still_expected = known.called if number is None else number in known.owed
        if still_expected:
            known.online = known.called = False
        self.withdrawn(client, number)
        known.ended |= self.phase is Phase.OVER
        return self.settle()

    def to_dismiss(self) -> list[int]:
        """Return the clients that have not ended and must be told that the run is over: online, called or chosen."""
        return [
            client
            for client, known in self.clients.items()
            if not known.ended and (known.online or known.called or client in self.chosen)
        ]

    def was_restarted(self, client: int, process: str | None) -> bool:
        """Return whether a client that reports as online must be a new process; to be asked before `online`.

        Args:
            client: the client's id.
            process: the name of its process; None if the client does not send one.
        """
        known = self.clients[client]
        if process is not None and known.process is not None:
            return process != known.process
        return known.online and not known.ever_called

    def online(self, client: int, process: str | None, now: float) -> Do:
        """Record that a client reported as online: it has started, or it answers a call. Return what to do.

        A client of the running round that neither has uploaded nor owes an upload is to be asked. A report that comes
        too soon after the last model has no effect.

        Args:
            client: the client's id.
            process: the name of its process; None if the client does not send one.
            now: the time in seconds, from any start.
        """
        known = self.clients[client]
        free = 1 if known.echoes else FREE_REPEATS
        if known.repeats >= free and now - known.asked_at < PAUSE_SECONDS and self.phase is Phase.RUNNING:
            return Do.NOTHING  # no process restarts so fast, and each model that is sent costs the server time
        same = process is not None and process == known.process
        known.seen = known.online = True
        known.ended, known.called, known.process = False, False, process
        if not same:
            # The uploads that the client's former process owed will never come.
            known.owed, known.received = [], 0
        if self.phase is Phase.OVER:
            return Do.DISMISS
        if self.phase is Phase.WAITING:
            all_online = bool(self.chosen) and all(self.clients[member].online for member in self.chosen)
            return Do.START if all_online else Do.NOTHING
        if client not in self.chosen or client in self.uploads or self.number in known.owed:
            return Do.NOTHING
        return Do.ASK

    def upload(self, client: int | None, number: object, content: Any) -> str | None:
        """Record an upload if it counts: if the client owes it, and it is for the round that is running.

        An upload that names its round settles what the client owes for that round and the rounds before; one that names
        none, as FedML's own clients send it, settles the oldest round that the client owes. An upload for an earlier
        round is settled in the same way, but does not count. After an upload that counts, the caller calls `settle`.

        Args:
            client: the client's id from `member`; None for an unknown client.
            number: the round that the upload claims to be for; None if it claims none; may be an arbitrary object.
            content: the upload.

        Returns:
            The reason why the upload does not count, or None if it counts.
        """
        if self.phase is not Phase.RUNNING:
            return "no round is running"
        if client is None:
            return "the client is not in the federation"
        known = self.clients[client]
        if number is None:
            # The oldest round is the right one, since a client answers models one by one and in order.
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

    def may_finish(self, client: int) -> bool:
        """Return whether a report that a client has ended is plausible: it was online, is called, or is to end."""
        known = self.clients[client]
        return known.seen or known.called or self.phase is Phase.OVER

    def finished(self, client: int) -> Do:
        """Record that a client reported that it has ended, and return what to do."""
        known = self.clients[client]
        if known.ended:
            return Do.NOTHING
        known.online = known.called = False
        known.ended, known.owed = True, []
        return self.settle()

    def settle(self) -> Do:
        """Return what follows from the present state; to be called after an upload, other methods call it themselves.

        Returns:
            `Do.AGGREGATE` if each client of the running round has uploaded or ended, and there are `minimum` uploads.
            `Do.STOP` if all clients of the run have ended, or, after the last round, none is left to dismiss.
            Otherwise `Do.NOTHING`.
        """
        if self.phase is Phase.OVER:
            return Do.STOP if not self.to_dismiss() else Do.NOTHING
        answered = all(client in self.uploads or self.clients[client].ended for client in self.chosen)
        if self.phase is Phase.RUNNING and answered and len(self.uploads) >= self.minimum:
            return Do.AGGREGATE
        return Do.STOP if all(client.ended for client in self.clients.values()) else Do.NOTHING

    def time_is_over(self) -> Do:
        """Return what to do when the time limit of the phase has passed: go on if `minimum` clients are in `here`."""
        if self.phase is Phase.OVER:
            return Do.STOP
        if len(self.here()) < self.minimum:
            return Do.NOTHING
        return Do.START if self.phase is Phase.WAITING else Do.AGGREGATE

    def here(self) -> list[int]:
        """Return the clients of the round that have answered; before the first round, those that are online."""
        if self.phase is Phase.WAITING:
            return [client for client in self.chosen if self.clients[client].online]
        return [client for client in self.chosen if client in self.uploads]

    def missing(self) -> list[int]:
        """Return the clients of the round that are not in `here`."""
        here = self.here()
        return [client for client in self.chosen if client not in here]

    def can_be_enough(self) -> bool:
        """Return whether the round can still get its minimum of uploads if no ended client is started again."""
        able = [client for client in self.chosen if client in self.uploads or not self.clients[client].ended]
        return len(able) >= self.minimum
