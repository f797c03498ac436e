"""Pickle instructions that build lists, tuples and dictionaries, and those that use the memo."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.literals import Handler

if TYPE_CHECKING:
    from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine

DICTIONARY, LIST = 232, 100  # Bytes that the ledger counts for an empty one, beside those of the instruction.
LARGEST_KEY = 2**31  # Integers as keys must be smaller than this in absolute value.
# Maximum number of entries of a dictionary with integers as keys. Python hashes an int to itself, so a sender could
# choose keys that collide, and each would be compared with all before it. FedML's messages have no such keys.
MOST_NUMBERS = 64


def empty_list(machine: Machine, position: int) -> int:
    machine.ledger.take(LIST)
    machine.stack.append([])
    return position


def empty_dictionary(machine: Machine, position: int) -> int:
    machine.ledger.take(DICTIONARY)
    machine.stack.append({})
    return position


def mark(machine: Machine, position: int) -> int:
    machine.ledger.take(LIST)
    machine.outer.append(machine.stack)
    machine.stack = []
    return position


def close_tuple(machine: Machine, position: int) -> int:
    items = tuple(machine.marked())
    machine.stack.append(items)
    return position


def tuple_of(count: int) -> Handler:
    def push(machine: Machine, position: int) -> int:
        stack = machine.stack
        if len(stack) < count:
            raise IndexError
        stack[-count:] = [tuple(stack[-count:])]
        return position

    return push


def append(machine: Machine, position: int) -> int:
    item = machine.stack.pop()
    _list(machine).append(item)
    return position


def appends(machine: Machine, position: int) -> int:
    items = machine.marked()
    _list(machine).extend(items)
    return position


def _list(machine: Machine) -> list[Any]:
    target = machine.stack[-1]
    if type(target) is not list:
        raise Undecodable("broken", "items are appended to an object that is no list")
    return target


def set_item(machine: Machine, position: int) -> int:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine, [key, value])
    return position


def set_items(machine: Machine, position: int) -> int:
    _put(machine, machine.marked())
    return position


def _put(machine: Machine, pairs: list[Any]) -> None:
    target = machine.stack[-1]
    if (type(target) is not dict and type(target) is not OrderedDict) or len(pairs) % 2:
        raise Undecodable("broken", "items are set in an object that is no dictionary")
    for index in range(0, len(pairs), 2):
        key = pairs[index]
        if type(key) is not str and not (type(key) is int and -LARGEST_KEY < key < LARGEST_KEY):
            raise Undecodable("unsupported", "a key that is neither text nor a small integer")
        if type(key) is int:
            machine.ledger.costly()
            if len(target) >= MOST_NUMBERS:
                found = f"a dictionary with numbers as keys and more than {MOST_NUMBERS} entries"
                raise Undecodable("too many objects", found)
        target[key] = pairs[index + 1]


def memoize(machine: Machine, position: int) -> int:
    machine.memo.append(machine.stack[-1])
    return position


def memo_put(read: Callable[..., tuple[int]], width: int) -> Handler:
    def put(machine: Machine, position: int) -> int:
        index = read(machine.data, position)[0]
        if index > len(machine.memo):
            raise Undecodable("broken", "memo entries that are not numbered one after the other")
        machine.memo[index : index + 1] = machine.stack[-1:]
        return position + width

    return put


def memo_get(read: Callable[..., tuple[int]], width: int) -> Handler:
    def get(machine: Machine, position: int) -> int:
        machine.stack.append(machine.memo[read(machine.data, position)[0]])
        return position + width

    return get
