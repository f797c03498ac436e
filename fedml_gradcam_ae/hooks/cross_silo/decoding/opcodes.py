"""Table of the pickle instructions that CPython writes in protocols 2 to 5 for plain data, with their handlers.

All other instructions are refused: persistent ids outside of a storage, extensions, out-of-band buffers, the text forms
of protocol 0, keyword arguments, POP and DUP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedml_gradcam_ae.hooks.cross_silo.decoding import calls, containers, literals
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.literals import (
    Handler,
    read_byte,
    read_float,
    read_int,
    read_long_size,
    read_short,
    read_size,
)

if TYPE_CHECKING:
    from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine

STOP = ord(".")  # The instruction that ends a pickle.
PROTO = 0x80  # The instruction that begins a pickle and names its protocol.


def _refused(machine: Machine, position: int) -> int:
    code = machine.data[position - 1]
    raise Undecodable("unsupported", f"the pickle instruction 0x{code:02x} is not one of those that plain data need")


def _proto(machine: Machine, position: int) -> int:
    version = machine.data[position]
    if position != machine.start + 1 or not 2 <= version <= 5:
        raise Undecodable("unsupported", f"pickle protocol {version} (expected 2 to 5, once, at the start)")
    return position + 1


def _frame(machine: Machine, position: int) -> int:
    if read_long_size(machine.data, position)[0] > machine.size - position - 8:
        raise Undecodable("broken", "a length points past the end")
    return position + 8


# The handler of each instruction, by its byte.
HANDLERS: list[Handler] = [_refused] * 256
for _code, _handler in {
    0x80: _proto,
    0x95: _frame,
    ord("N"): literals.constant(None),
    0x88: literals.constant(True),
    0x89: literals.constant(False),
    ord("K"): literals.byte,
    ord("M"): literals.number(read_short, 2),
    ord("J"): literals.number(read_int, 4),
    0x8A: literals.long,
    ord("G"): literals.number(read_float, 8),
    0x8C: literals.sized(literals.text, read_byte, 1),
    ord("X"): literals.sized(literals.text, read_size, 4),
    0x8D: literals.sized(literals.text, read_long_size, 8),
    ord("C"): literals.sized(literals.raw, read_byte, 1),
    ord("B"): literals.sized(literals.raw, read_size, 4),
    0x8E: literals.sized(literals.raw, read_long_size, 8),
    0x96: literals.sized(literals.raw, read_long_size, 8),
    ord("]"): containers.empty_list,
    ord("}"): containers.empty_dictionary,
    ord(")"): literals.constant(()),
    ord("("): containers.mark,
    ord("t"): containers.close_tuple,
    0x85: containers.tuple_of(1),
    0x86: containers.tuple_of(2),
    0x87: containers.tuple_of(3),
    ord("a"): containers.append,
    ord("e"): containers.appends,
    ord("s"): containers.set_item,
    ord("u"): containers.set_items,
    ord("c"): calls.look_up_global,
    0x93: calls.look_up_stacked,
    ord("R"): calls.call,
    0x81: calls.new_object,
    ord("b"): calls.build,
    0x94: containers.memoize,
    ord("q"): containers.memo_put(read_byte, 1),
    ord("r"): containers.memo_put(read_size, 4),
    ord("h"): containers.memo_get(read_byte, 1),
    ord("j"): containers.memo_get(read_size, 4),
    ord("Q"): calls.persistent,
}.items():
    HANDLERS[_code] = _handler
