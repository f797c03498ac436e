"""The decoder's machine: a pickle's stack and memo, and the loop that executes its instructions."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.opcodes import HANDLERS, PROTO, STOP

BATCH = 256  # instructions between two looks at the ledger

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

    def run(self, start: int = 0) -> tuple[Any, int]:
        """Execute the pickle that begins at `start`.

        Returns:
            The value, which may hold `Name`, `Unfinished` and views, and may hold itself; and where the pickle ends.

        Raises:
            Undecodable: if it is broken, names anything outside of the table, or is over the budget.
        """
        self.start = start
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: list[Any] = []
        try:
            return self._execute(start)
        except (IndexError, struct.error):
            # Reading past the end, popping from an empty stack, getting what was never put.
            raise Undecodable("broken", "the pickle is cut off or inconsistent") from None
        except UnicodeError:
            raise Undecodable("broken", "text that is no UTF-8 or no Latin-1") from None

    def _execute(self, position: int) -> tuple[Any, int]:
        data, handlers, executed = self.data, HANDLERS, self.ledger.executed
        if data[position] != PROTO:
            raise Undecodable("broken", "no pickle of protocol 2 to 5")
        while True:
            for count in range(1, BATCH + 1):
                code = data[position]
                if code == STOP:
                    executed(count)
                    if self.outer or len(self.stack) != 1:
                        raise Undecodable("broken", "the pickle ends in the middle of a value")
                    return self.stack.pop(), position + 1
                position = handlers[code](self, position + 1)
            executed(BATCH)

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
