"""Flags over rounds: who is left out in which round, and who never comes back (paper, eq. 18 and 19)."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import voted_out


class Votes:
    """Remembers the flags of the last rounds, by client id.

    Args:
        every: xi; in rounds divisible by it the vote decides, in the others the round's own flags.
        needed: epsilon, the flags that a vote needs.
        permanent: whether who is voted out stays out.
    """

    def __init__(self, every: int, needed: int, permanent: bool) -> None:
        self.every, self.needed, self.permanent = every, needed, permanent
        self.removed: dict[ClientId, int] = {}
        self._flags: dict[int, set[ClientId]] = {}

    def decide(self, number: int, flagged: Set[ClientId]) -> dict[ClientId, str | None]:
        """Who is left out in this round, with a reason where it is not this round's flag.

        Args:
            number: the round, from 1.
            flagged: who is flagged in it.
        """
        self._flags = {past: who for past, who in self._flags.items() if past > number - self.every}
        self._flags[number] = set(flagged)
        if number % self.every:
            out: dict[ClientId, str | None] = dict.fromkeys(flagged)
        else:
            counts = voted_out(self._flags, number, self.every, self.needed)
            out = {client: f"flagged in {flags} of {self.every} rounds" for client, flags in counts.items()}
            if self.permanent:
                self.removed = {**dict.fromkeys(out, number), **self.removed}
        return {**out, **{client: f"voted out for good in round {past}" for client, past in self.removed.items()}}

    def release(self, client: ClientId) -> None:
        """Take back a removal, and forget the flags that led to it."""
        self.removed.pop(client, None)
        for flagged in self._flags.values():
            flagged.discard(client)

    def state(self) -> dict[str, Any]:
        """What must outlive the process."""
        flags = {number: sorted(clients, key=str) for number, clients in self._flags.items()}
        return {"flags": flags, "removed": dict(self.removed)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._flags = {int(number): set(clients) for number, clients in state["flags"].items()}
        self.removed = dict(state["removed"])
