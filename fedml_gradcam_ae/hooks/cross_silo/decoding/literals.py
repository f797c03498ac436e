"""Pickle instructions that push constants, numbers, text and bytes.

Each instruction is a function of the machine and the position of its argument, which returns the next position.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from sys import getsizeof
from typing import TYPE_CHECKING, Any

import numpy as np

from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable

if TYPE_CHECKING:
    from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine

Handler = Callable[["Machine", int], int]

EMPTY_TEXT = 80  # Bytes that the ledger counts for a text beside its characters.
VIEW = 256  # Bytes that the ledger counts for a memoryview.
SHORT_TEXT = 256  # Texts of more bytes are searched for their widest character to estimate their size.
Read = Callable[..., tuple[Any, ...]]
read_byte: Read = struct.Struct("<B").unpack_from
read_int: Read = struct.Struct("<i").unpack_from
read_short: Read = struct.Struct("<H").unpack_from
read_size: Read = struct.Struct("<I").unpack_from
read_long_size: Read = struct.Struct("<Q").unpack_from
read_float: Read = struct.Struct(">d").unpack_from


def constant(value: Any) -> Handler:
    def push(machine: Machine, position: int) -> int:
        machine.stack.append(value)
        return position

    return push


def byte(machine: Machine, position: int) -> int:
    machine.stack.append(machine.data[position])
    return position + 1


def number(read: Callable[..., tuple[Any, ...]], size: int) -> Handler:
    def push(machine: Machine, position: int) -> int:
        machine.stack.append(read(machine.data, position)[0])
        return position + size

    return push


def long(machine: Machine, position: int) -> int:
    size = machine.data[position]
    value = int.from_bytes(machine.cut(position + 1, position + 1 + size)[:10], "little", signed=True)
    if size > 9 or not -(2**63) <= value < 2**64:
        raise Undecodable("too large", "an integer of more than 64 bits")
    machine.stack.append(value)
    return position + 1 + size


def sized(push: Callable[[Machine, memoryview], None], read: Callable[..., tuple[int]], width: int) -> Handler:
    def handle(machine: Machine, position: int) -> int:
        start = position + width
        end = start + read(machine.data, position)[0]
        push(machine, machine.cut(start, end))
        return end

    return handle


def text(machine: Machine, view: memoryview) -> None:
    """Push a text.

    Args:
        machine: the machine.
        view: the text in UTF-8; lone surrogates are rejected.
    """
    # One wide character widens all characters of a str, and meanwhile the narrow text takes memory as well.
    size = len(view)
    widest = 255 if size <= SHORT_TEXT else int(np.frombuffer(view, np.uint8).max())
    most = EMPTY_TEXT + size * (1 if widest < 0x80 else 2 if widest < 0xC4 else 4 if widest < 0xF0 else 6)
    machine.ledger.take(most)
    decoded = str(view, "utf-8")
    machine.ledger.give_back(max(0, most - getsizeof(decoded)))
    machine.stack.append(decoded)


def raw(machine: Machine, view: memoryview) -> None:
    """Push bytes without a copy, since most of them become tensors, which copy the data.

    Args:
        machine: the machine.
        view: the bytes, as a view of the message.
    """
    machine.ledger.take(VIEW)
    machine.stack.append(view)
