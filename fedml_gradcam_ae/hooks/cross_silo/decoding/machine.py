"""The state of a pickle that is read: its stack and its memo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable

Table = Mapping[tuple[str, str], Any]


class Machine:
    """One pickle's stack and memo.

    Args:
        data: bytes that begin with or hold the pickle.
        table: what (module, name) stands for.
        ledger: pays for what is built.
        storages: whether persistent ids are read, as torch's serialization uses them.
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
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: list[Any] = []

    def cut(self, start: int, end: int) -> memoryview:
        """The bytes from `start` to `end`, all of which must be there."""
        if end > self.size:
            raise Undecodable("broken", "a length points past the end")
        return self.data[start:end]

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items = self.stack
        self.stack = self.outer.pop()
        return items
