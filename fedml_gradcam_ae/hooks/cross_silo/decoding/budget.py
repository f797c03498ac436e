"""What decoding may cost, and the ledger that every value is entered in before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable

# The most that one instruction's value takes: a tuple of three, its slot on the stack and its entry in the memo.
INSTRUCTION = 144
# A memoized text in a list takes two instructions, an entry of a dictionary of texts four.
INSTRUCTIONS_PER_OBJECT = 4
# A call, and setting an entry whose key may collide, take the time of as many plain instructions.
COSTLY = 25


@dataclass(frozen=True)
class Budget:
    """What decoding one message may cost.

    Args:
        bytes: memory of all that is built: the data, and about 150 bytes per value around it.
        objects: values of the result, each counted as often as it appears in it. The instructions are bounded by it
            too, four for each. A call counts as 25 instructions, and one that builds a tensor as 100.
        depth: containers in containers.
        seconds: time.
    """

    bytes: int
    objects: int = 1_000_000
    depth: int = 64
    seconds: float = 30.0


class Ledger:
    """What is left of a budget."""

    __slots__ = ("_bytes", "_deadline", "_instructions", "budget", "header")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._bytes = budget.bytes
        self._instructions = INSTRUCTIONS_PER_OBJECT * budget.objects
        self._deadline = monotonic() + budget.seconds
        self.header = b""  # of the last storage that was read; those of one message share it

    def take(self, size: int) -> None:
        """Enter `size` bytes, before they are allocated.

        Raises:
            Undecodable: if less is left.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise Undecodable("too large", f"decoded, it would take more than {self.budget.bytes} bytes")

    def give_back(self, size: int) -> None:
        """Enter that `size` bytes were freed again."""
        self._bytes += size

    @property
    def _too_many(self) -> str:
        return f"more than {self.budget.objects} values, or as much work as these"

    def executed(self, count: int) -> None:
        """Enter `count` instructions and the small values that they made.

        Raises:
            Undecodable: if the memory, the instructions or the time is used up.
        """
        self._instructions -= count
        if self._instructions < 0:
            raise Undecodable("too many objects", self._too_many)
        self.take(count * INSTRUCTION)
        self.check_time()

    def costly(self, instructions: int = COSTLY) -> None:
        """Enter a step that takes as long as so many plain instructions, before it is done.

        Raises:
            Undecodable: if fewer instructions are left.
        """
        self._instructions -= instructions
        if self._instructions < 0:
            raise Undecodable("too many objects", self._too_many)

    def check_time(self) -> None:
        """Raise Undecodable if the time is used up."""
        if monotonic() > self._deadline:
            raise Undecodable("too slow", f"decoding takes longer than {self.budget.seconds} seconds")
