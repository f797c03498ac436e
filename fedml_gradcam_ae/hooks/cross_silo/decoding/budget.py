"""Budget of decoding one message, and the ledger that counts each value before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable

# Bytes counted for each instruction. This is the most that its value needs: a tuple of three, its slot on the stack
# and its entry in the memo.
INSTRUCTION = 144
# Instructions allowed for each object of the budget. A memoized text in a list takes two, an entry of a dictionary of
# texts takes four.
INSTRUCTIONS_PER_OBJECT = 4
# Number of plain instructions that take as much time as a call, or as an entry whose key may collide with others.
COSTLY = 25


@dataclass(frozen=True)
class Budget:
    """Limits for decoding one message.

    Args:
        bytes: the most memory for everything that is built: the data, and about 150 bytes per value beside it.
        objects: the most values of the result; a value counts as often as it appears in the result. This limits the
            instructions as well, to four per object. A call counts as 25 instructions, and one that builds a tensor
            as 100.
        depth: the most levels of nested containers.
        seconds: the longest time.
    """

    bytes: int
    objects: int = 1_000_000
    depth: int = 64
    seconds: float = 30.0


class Ledger:
    """Account of what is left of a budget.

    Args:
        budget: the budget.

    Attributes:
        budget: the budget.
        header: the header of the last storage that was read, since the storages of one message have the same.
    """

    __slots__ = ("_bytes", "_deadline", "_instructions", "budget", "header")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._bytes = budget.bytes
        self._instructions = INSTRUCTIONS_PER_OBJECT * budget.objects
        self._deadline = monotonic() + budget.seconds
        self.header = b""

    def take(self, size: int) -> None:
        """Count `size` bytes, before they are allocated.

        Raises:
            Undecodable: if fewer bytes are left.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise Undecodable("too large", f"decoded, it would take more than {self.budget.bytes} bytes")

    def give_back(self, size: int) -> None:
        """Return `size` bytes to the budget after they were freed."""
        self._bytes += size

    @property
    def _too_many(self) -> str:
        return f"more than {self.budget.objects} values, or as much work as these"

    def executed(self, count: int) -> None:
        """Count `count` instructions and the small values that they made.

        Raises:
            Undecodable: if the memory, the instructions or the time is used up.
        """
        self._instructions -= count
        if self._instructions < 0:
            raise Undecodable("too many objects", self._too_many)
        self.take(count * INSTRUCTION)
        self.check_time()

    def costly(self, instructions: int = COSTLY) -> None:
        """Count a costly step, before it is done.

        Args:
            instructions: the number of plain instructions that take as long.

        Raises:
            Undecodable: if fewer instructions are left.
        """
        self._instructions -= instructions
        if self._instructions < 0:
            raise Undecodable("too many objects", self._too_many)

    def check_time(self) -> None:
        """Check the time.

        Raises:
            Undecodable: if the time is used up.
        """
        if monotonic() > self._deadline:
            raise Undecodable("too slow", f"decoding takes longer than {self.budget.seconds} seconds")
