"""The vote over rounds: which clients are left out in a round or for good (paper, eq. 18 and 19)."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.threshold import voted_out


class Votes:
    """The flags of the last rounds by client id, and the vote on them.

    Args:
        every: xi; the vote decides in rounds divisible by it, and the round's own flags decide in the others.
        needed: epsilon, the number of flags that a vote needs.
        permanent: whether clients that are voted out stay out.

    Example:
        >>> votes = Votes(every=3, needed=2, permanent=False)
        >>> votes.decide(1, {"a"}), votes.decide(2, {"a"}), votes.decide(3, {"b"})
        ({'a': None}, {'a': None}, {'a': 'flagged in 2 of 3 rounds'})
    """

    def __init__(self, every: int, needed: int, permanent: bool) -> None:
        self.every, self.needed, self.permanent = every, needed, permanent
        self.removed: dict[ClientId, int] = {}
        self._flags: dict[int, set[ClientId]] = {}

    def decide(self, number: int, flagged: Set[ClientId]) -> dict[ClientId, str | None]:
        """Return the clients that are left out in this round.

        Args:
            number: the round, from 1.
            flagged: the clients that are flagged in it.

        Returns:
            By client id, the reason; None where it is this round's flag.
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
        """Take back a client's permanent removal and forget its flags."""
        self.removed.pop(client, None)
        for flagged in self._flags.values():
            flagged.discard(client)

    def state(self) -> dict[str, Any]:
        """Return the state to save: the flags of the last rounds and the permanent removals."""
        flags = {number: sorted(clients, key=str) for number, clients in self._flags.items()}
        return {"flags": flags, "removed": dict(self.removed)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._flags = {int(number): set(clients) for number, clients in state["flags"].items()}
        self.removed = dict(state["removed"])
