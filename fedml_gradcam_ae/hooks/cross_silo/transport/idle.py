"""Connections without a call: which are closed where they take the places of others."""

from __future__ import annotations

from collections.abc import Collection

from fedml_gradcam_ae.hooks.cross_silo.transport.progress import Connection


class Idle:
    """The connections that are open, and how long each has been.

    FedML's clients open a connection for each message and close it at once, so a connection that has no call is a
    client's for a moment only. Where more than half of the places are taken, the oldest of them go.

    Args:
        places: the most connections that may be open.
        grace: seconds that a connection may take until its call begins.
    """

    def __init__(self, places: int, grace: float) -> None:
        self.places, self.grace = places, grace
        self._since: dict[Connection, float] = {}

    def sweep(self, now: float, open: Collection[Connection], busy: Collection[Connection]) -> list[Connection]:
        """Choose the connections to close.

        Args:
            now: seconds.
            open: all connections.
            busy: those that have a call on its way.

        Returns:
            Connections without a call, the oldest first: as many as it takes until half of the places are free, but
            none that is younger than the grace.

        Example:
            >>> idle = Idle(places=4, grace=1.0)
            >>> a, b, c = ("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.2", 1)
            >>> idle.sweep(0.0, [a, b, c], busy=[a])
            []
            >>> idle.sweep(1.0, [a, b, c], busy=[a])
            [('192.0.2.1', 2)]
        """
        self._since = {connection: self._since.get(connection, now) for connection in open}
        old = [c for c, since in self._since.items() if c not in busy and now - since >= self.grace]
        return sorted(old, key=self._since.__getitem__)[: max(0, len(open) - self.places // 2)]
