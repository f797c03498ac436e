"""Pickle instructions that look up a name, call it, make an object or set a state, without running named code."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Name, Refusal, SavedStorage, Unfinished

if TYPE_CHECKING:
    from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine

LONGEST_NAME = 200  # Maximum length of a module's or a class's name in bytes.
OBJECT = 256  # Bytes that the ledger counts for a new object.


def look_up_global(machine: Machine, position: int) -> int:
    found = bytes(machine.data[position : position + 2 * LONGEST_NAME]).split(b"\n", 2)
    if len(found) < 3:
        raise Undecodable("broken", "a name that is cut off or too long")
    machine.stack.append(_look_up(machine, str(found[0], "utf-8"), str(found[1], "utf-8")))
    return position + len(found[0]) + len(found[1]) + 2


def look_up_stacked(machine: Machine, position: int) -> int:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise Undecodable("broken", "a name that is no text")
    machine.stack.append(_look_up(machine, module, name))
    return position


def _look_up(machine: Machine, module: str, name: str) -> Any:
    found = machine.table.get((module, name))
    if found is None:
        full = f"{module[:LONGEST_NAME]}.{name[:LONGEST_NAME]}"
        raise Undecodable("names code", f"a message may hold tensors, arrays and plain values only, found {full}")
    if type(found) is Refusal:
        raise Undecodable("unsupported", found.reason)
    return found


def call(machine: Machine, position: int) -> int:
    arguments, name = machine.stack.pop(), machine.stack.pop()
    if type(name) is not Name or name.call is None or type(arguments) is not tuple:
        raise Undecodable("broken", "a call of an object that is not callable")
    machine.ledger.costly()
    machine.stack.append(name.call(arguments, machine.ledger))
    return position


def new_object(machine: Machine, position: int) -> int:
    arguments, name = machine.stack.pop(), machine.stack.pop()
    if type(name) is not Name or name.new is None or type(arguments) is not tuple or arguments:
        raise Undecodable("unsupported", "an object of a class that messages do not need")
    machine.ledger.take(OBJECT)
    machine.stack.append(name.new())
    return position


def build(machine: Machine, position: int) -> int:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, Unfinished):
        target.fill(state, machine.ledger)
    elif type(target) is not OrderedDict or type(state) is not dict or len(state) != 1 or "_metadata" not in state:
        # torch.nn.Module.state_dict sets `_metadata`, the versions of the layers. It is not needed and dropped.
        raise Undecodable("unsupported", "a state is set on an object that has none in plain data")
    return position


def persistent(machine: Machine, position: int) -> int:
    fields = machine.stack.pop()
    if not machine.storages or type(fields) is not tuple:
        raise Undecodable("unsupported", "a persistent id")
    machine.stack.append(SavedStorage(fields))
    return position
