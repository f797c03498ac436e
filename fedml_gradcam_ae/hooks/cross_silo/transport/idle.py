"""Choice of idle connections to close when they take too many places."""

from __future__ import annotations

from collections.abc import Collection

from fedml_gradcam_ae.hooks.cross_silo.transport.progress import Connection


class Idle:
    """Record of the open connections and their ages.

    FedML's clients open a connection for each message and close it right after. So a benign client's connection is
    without a call only for a moment. If more than half of the places are taken, the oldest idle connections are
    closed.

    Args:
        places: the maximum number of open connections.
        grace: the time in seconds that a connection may take until its call begins.
    """

    def __init__(self, places: int, grace: float) -> None:
        self.places, self.grace = places, grace
        self._since: dict[Connection, float] = {}

    def sweep(self, now: float, open: Collection[Connection], busy: Collection[Connection]) -> list[Connection]:
        """Choose the connections to close.

        Args:
            now: the time in seconds.
            open: all open connections.
            busy: the connections that have a call on its way.

        Returns:
            Connections without a call, the oldest first: as many as are needed until half of the places are free, but
            none that is younger than `grace`.

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
