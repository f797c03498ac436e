"""Loop that executes a pickle's instructions."""

from __future__ import annotations

import struct
from typing import Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine
from fedml_gradcam_ae.hooks.cross_silo.decoding.opcodes import HANDLERS, PROTO, STOP

BATCH = 256  # Number of instructions between two checks of the budget.


def run(machine: Machine, start: int = 0) -> tuple[Any, int]:
    """Execute the pickle that begins at `start`.

    Args:
        machine: the machine with the pickle's bytes.
        start: the position of the pickle in these bytes.

    Returns:
        The value, and the position after the pickle's end. The value may hold `Name`, `Unfinished` and memoryviews,
        and may contain itself.

    Raises:
        Undecodable: if the pickle is broken, names anything outside of the table, or exceeds the budget.
    """
    machine.begin(start)
    try:
        return _execute(machine, start)
    except (IndexError, struct.error):
        # Causes: reading past the end, popping from an empty stack, getting a memo entry that was never put.
        raise Undecodable("broken", "the pickle is cut off or inconsistent") from None
    except UnicodeError:
        raise Undecodable("broken", "text that is no UTF-8 or no Latin-1") from None


def _execute(machine: Machine, position: int) -> tuple[Any, int]:
    data, handlers, executed = machine.data, HANDLERS, machine.ledger.executed
    if data[position] != PROTO:
        raise Undecodable("broken", "no pickle of protocol 2 to 5")
    while True:
        for count in range(1, BATCH + 1):
            code = data[position]
            if code == STOP:
                executed(count)
                if machine.outer or len(machine.stack) != 1:
                    raise Undecodable("broken", "the pickle ends in the middle of a value")
                return machine.stack.pop(), position + 1
            position = handlers[code](machine, position + 1)
        executed(BATCH)
