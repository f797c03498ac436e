"""Pickles written opcode by opcode: what no pickler would write. Nothing here is ever unpickled by the tests."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from hostile.network import CLAIM, MINE, honest

ONLINE, UPLOAD = 5, 3
ME, OTHER, SERVER, STRANGER = 6, 1, 0, 7  # the hostile client, an honest one, the server, a port that no client has
MESSAGE = ("fedml.core.distributed.communication.message", "Message")


def value(what: Any) -> bytes:
    """The opcodes that leave an ordinary value on the stack, in the protocol that FedML's clients use."""
    file = io.BytesIO()
    pickler = pickle._Pickler(file, 4)  # type: ignore[attr-defined]  # the one in C cannot leave the frames out
    pickler.framer.start_framing = lambda: None
    pickler.fast = True  # without the memo, whose indices would clash with those of other parts
    pickler.dump(what)
    return file.getvalue()[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Look up `module.attribute`."""
    return value(module) + value(attribute) + b"\x93"


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def list_of(*parts: bytes) -> bytes:
    return b"](" + b"".join(parts) + b"e"


def dict_of(pairs: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(value(key) + part for key, part in pairs.items()) + b"u"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """Call `module.attribute` with these arguments."""
    return name(module, attribute) + tuple_of(*arguments) + b"R"


def build(what: bytes, state: bytes) -> bytes:
    """Give an object a state."""
    return what + state + b"b"


def program(opcodes: bytes) -> bytes:
    return b"\x80\x04" + opcodes + b"."


_PARAMETERS = {"msg_type": UPLOAD, "sender": ME, "receiver": SERVER, "num_samples": CLAIM}


def message(attributes: Mapping[str, bytes] | None = None, **parameters: bytes | None) -> bytes:
    """An upload as FedML's clients send it, but for what is given.

    Args:
        attributes: of the message itself, besides and instead of FedML's: opcodes.
        parameters: of its `msg_params`: opcodes, or None for one that is missing.
    """
    given = {name: value(what) for name, what in _PARAMETERS.items()} | {"model_params": model()}
    given.update({name: part for name, part in parameters.items() if part is not None})
    kept = {name: part for name, part in given.items() if parameters.get(name, part) is not None}
    return program(_object({"msg_params": dict_of(kept), **(attributes or {})}))


def with_params(opcodes: bytes) -> bytes:
    """A message with this in the place of its dictionary of parameters."""
    return program(_object({"msg_params": opcodes}))


def addressed(kind: bytes | None = None, sender: bytes | None = None, receiver: bytes | None = None) -> bytes:
    """An upload of this type, sender and receiver, in all places where a message says so."""
    given = {"type": kind, "sender_id": sender, "receiver_id": receiver}
    attributes = {key: part for key, part in given.items() if part is not None}
    both = {"msg_type": kind, "sender": sender, "receiver": receiver}
    return message(attributes, **{key: part for key, part in both.items() if part is not None})


def status(**parameters: bytes | None) -> bytes:
    """A client's message about its status, but for what is given."""
    given = {"msg_type": value(ONLINE), "client_status": value("ONLINE"), "client_os": value("linux"), **parameters}
    return message({"type": value("5")}, model_params=None, num_samples=None, **given)


def _object(attributes: Mapping[str, bytes]) -> bytes:
    own = {"type": value("3"), "sender_id": value(ME), "receiver_id": value(SERVER), **attributes}
    return build(name(*MESSAGE) + b")\x81", dict_of(own))


def model() -> bytes:
    """An honest upload."""
    return value(honest(MINE))


def with_tensor(tensor: bytes) -> bytes:
    """A message with an honest upload, but for one tensor."""
    parts = {key: value(part) for key, part in honest(MINE).items()} | {"conv.bias": tensor}
    return message(model_params=dict_of(parts))


def tensor(size: Any, stride: Any, offset: int = 0, storage: bytes | None = None) -> bytes:
    """A tensor over a storage of four numbers, with a size, stride and offset of the sender's choice."""
    if storage is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TypedStorage is deprecated, and what torch pickles
            storage = value(torch.zeros(4).storage())
    parts = [storage, value(offset), value(size), value(stride), value(False), call("collections", "OrderedDict")]
    return call("torch._utils", "_rebuild_tensor_v2", *parts)


def long_put(index: int) -> bytes:
    """Keep the top of the stack in the memo, far away."""
    return b"r" + struct.pack("<I", index)
