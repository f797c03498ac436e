"""Calls whose message has not come in full: how many there may be, and which are ended first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedml_gradcam_ae.hooks.cross_silo.transport import progress
from fedml_gradcam_ae.hooks.cross_silo.transport.progress import Connection

GRACE = 10.0  # seconds before a call counts as slow
SLOWEST = 1000.0  # bytes a second
PLACES = 512 if progress.SUPPORTED else 64
PLACES_OF_AN_IDENTITY = 2


@dataclass(eq=False)
class Call:
    """A call whose message is on its way.

    Args:
        connection: the other side.
        rank: whose certificate it holds; None without TLS.
        since: when it began, in seconds.
        bytes: how many have come.
        recent: how many of them came between the last two sweeps.
        judged: whether it was there for all of the time between two sweeps, so that `recent` says something.
    """

    connection: Connection
    rank: int | None
    since: float
    bytes: int = 0
    recent: int = 0
    judged: bool = False


class Unfinished:
    """The calls on their way, and the rules of which have to go.

    With TLS an identity holds at most two, the newest, so that a client can only be in its own way. Without it nothing
    says who calls: all share the places, and the calls that bring the least go first. New calls, of which that is not
    known yet, go last as long as they hold no more than half of the places: neither calls that trickle nor a flood of
    new ones can take all.

    Args:
        receive_timeout: seconds that a message may take.
        bytes: the most that calls on their way may hold in all.
        places: the most calls on their way.
    """

    def __init__(self, receive_timeout: float, bytes: int, places: int = PLACES) -> None:
        self.receive_timeout, self.bytes, self.places = receive_timeout, bytes, places
        self._calls: dict[Call, None] = {}
        self._read: Counter[Connection] = Counter()
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def connections(self) -> set[Connection]:
        """The connections that the calls are on."""
        return {call.connection for call in self._calls}

    def enter(self, call: Call) -> list[tuple[Call, str]]:
        """Add a call; answer with those that have to go for it, and why."""
        self._calls[call] = None
        same = [each for each in self._calls if call.rank is not None and each.rank == call.rank]
        if len(same) > PLACES_OF_AN_IDENTITY:
            return self._without({same[0]: "a newer call of the same client has come"})
        if len(self._calls) > self.places:
            return self._without({self._by_worth(spare_new=True)[0]: "too many calls at once"})
        return []

    def leave(self, call: Call, size: int = 0) -> None:
        """Take a call off, with the size of the message that it brought."""
        self._calls.pop(call, None)
        self._read[call.connection] += size

    def sweep(self, now: float, received: Mapping[Connection, int]) -> list[tuple[Call, str]]:
        """Look at how far the calls have come.

        Args:
            now: seconds, on the clock of `Call.since`.
            received: bytes by connection, since the connection began; a connection that is missing is not judged.

        Returns:
            The calls that have to go, and why.
        """
        for connection in [each for each in self._read if each not in received]:
            del self._read[connection]
        crowds = self._crowds()
        for call in self._calls:
            call.judged = call.since <= self._swept
            if call.connection in received:
                came = max(0, received[call.connection] - self._read[call.connection]) // crowds[call.connection]
                call.recent, call.bytes = max(0, came - call.bytes), came
        self._swept = now
        out: dict[Call, str] = {}
        for call in self._calls:
            age = now - call.since
            if age > self.receive_timeout:
                out[call] = f"its message took longer than {self.receive_timeout:g} s"
            elif age > GRACE and call.connection in received and call.bytes < SLOWEST * age:
                out[call] = f"its message came at less than {SLOWEST:g} bytes a second"
        held = sum(call.bytes for call in self._calls if call not in out)
        for call in self._by_worth():
            if held > self.bytes and call not in out:
                out[call] = "too many bytes on their way"
                held -= call.bytes
        return self._without(out)

    def _crowds(self) -> Counter[Connection]:
        return Counter(call.connection for call in self._calls)

    def _by_worth(self, spare_new: bool = False) -> list[Call]:
        """The call that goes first, first: of a crowded connection, bringing little, begun early.

        Args:
            spare_new: put new calls behind the others, or before them if they hold more than half of the places.
        """
        crowds = self._crowds()
        few = 2 * sum(not call.judged for call in self._calls) <= self.places

        def worth(call: Call) -> tuple[int, bool, int, float]:
            later = spare_new and call.judged is not few
            return -crowds[call.connection], later, call.recent, call.since

        return sorted(self._calls, key=worth)

    def _without(self, out: dict[Call, str]) -> list[tuple[Call, str]]:
        for call in out:
            del self._calls[call]
        return list(out.items())
