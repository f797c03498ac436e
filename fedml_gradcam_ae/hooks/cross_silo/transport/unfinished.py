"""Calls whose message has not arrived completely: limits on their number, and the order in which they are ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedml_gradcam_ae.hooks.cross_silo.transport import progress
from fedml_gradcam_ae.hooks.cross_silo.transport.progress import Connection

GRACE = 10.0  # Seconds before a call can count as slow.
SLOWEST = 1000.0  # Lowest accepted rate, in bytes per second over the whole call.
PLACES = 512 if progress.SUPPORTED else 64  # Maximum number of unfinished calls.
PLACES_OF_AN_IDENTITY = 2  # Maximum number of unfinished calls with the same certificate.


@dataclass(eq=False)
class Call:
    """Call whose message is on its way.

    Args:
        connection: the address and port of the other side.
        rank: the rank in the other side's certificate; None without TLS.
        since: the time at which the call began, in seconds.
        bytes: the number of bytes that have arrived.
        recent: the number of bytes that arrived between the last two sweeps.
        judged: whether the call was there during the whole time between two sweeps, so that `recent` is meaningful.
    """

    connection: Connection
    rank: int | None
    since: float
    bytes: int = 0
    recent: int = 0
    judged: bool = False


class Unfinished:
    """Set of unfinished calls, and the rules for ending some of them.

    With TLS, each certificate holds at most two calls, the newest ones, so that a client can only displace its own
    calls. Without TLS the callers are not known, so all calls share the places, and those that bring the fewest bytes
    are ended first. New calls, whose rate is not known yet, are ended last while they hold at most half of the places.
    So neither slow calls nor a flood of new ones can take all places.

    Args:
        receive_timeout: the longest time in seconds that a message may take.
        bytes: the most bytes that all unfinished calls may hold.
        places: the maximum number of unfinished calls.
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
        """Return the connections of the unfinished calls."""
        return {call.connection for call in self._calls}

    def enter(self, call: Call) -> list[tuple[Call, str]]:
        """Add a call.

        Returns:
            The calls to end in exchange, each with the reason.
        """
        self._calls[call] = None
        same = [each for each in self._calls if call.rank is not None and each.rank == call.rank]
        if len(same) > PLACES_OF_AN_IDENTITY:
            return self._without({same[0]: "a newer call of the same client has come"})
        if len(self._calls) > self.places:
            return self._without({self._by_worth(spare_new=True)[0]: "too many calls at once"})
        return []

    def leave(self, call: Call, size: int = 0) -> None:
        """Remove a call.

        Args:
            call: the call.
            size: the size of the message that was read from it, in bytes.
        """
        self._calls.pop(call, None)
        self._read[call.connection] += size

    def sweep(self, now: float, received: Mapping[Connection, int]) -> list[tuple[Call, str]]:
        """Update the progress of all calls, and choose the calls to end.

        Args:
            now: the time in seconds, on the clock of `Call.since`.
            received: the number of bytes that each connection has received since it began. Calls of a missing
                connection keep their numbers and do not count as slow.

        Returns:
            The calls to end, each with the reason.
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
                out[call] = f"its message arrived at less than {SLOWEST:g} bytes a second"
        held = sum(call.bytes for call in self._calls if call not in out)
        for call in self._by_worth():
            if held > self.bytes and call not in out:
                out[call] = "too many bytes in unfinished calls"
                held -= call.bytes
        return self._without(out)

    def _crowds(self) -> Counter[Connection]:
        return Counter(call.connection for call in self._calls)

    def _by_worth(self, spare_new: bool = False) -> list[Call]:
        """Return all calls in the order in which they are ended.

        Calls on crowded connections come first, then those that bring few bytes, then those that began early.

        Args:
            spare_new: whether new calls come after the others. If new calls hold more than half of the places, they
                come before the others instead.
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
