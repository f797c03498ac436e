"""State of a pickle that is being read: its stack and its memo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable

Table = Mapping[tuple[str, str], Any]  # The allowed names: a value for each pair (module, name).


class Machine:
    """Stack and memo of one pickle.

    Args:
        data: the bytes that hold the pickle.
        table: the allowed names: a value for each pair (module, name).
        ledger: the ledger that counts the cost.
        storages: whether persistent ids are allowed, which torch's serialization of storages uses.
    """

    __slots__ = ("data", "ledger", "memo", "outer", "size", "stack", "start", "storages", "table")

    def __init__(self, data: memoryview, table: Table, ledger: Ledger, storages: bool = False) -> None:
        self.data = data
        self.size = len(data)
        self.table = table
        self.ledger = ledger
        self.storages = storages

    def begin(self, start: int) -> None:
        """Empty the stack and the memo for the pickle that begins at `start`."""
        self.start = start
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # The stacks below the marks, the outermost first.
        self.memo: list[Any] = []

    def cut(self, start: int, end: int) -> memoryview:
        """Return a view of the bytes from position `start` up to and without `end`.

        Raises:
            Undecodable: if `end` lies behind the end of the data.
        """
        if end > self.size:
            raise Undecodable("broken", "a length points past the end")
        return self.data[start:end]

    def marked(self) -> list[Any]:
        """Remove the last mark and return the values pushed since."""
        items = self.stack
        self.stack = self.outer.pop()
        return items
