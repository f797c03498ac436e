"""What an attacker sends who has read the decoder, and the kind that each is refused by."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from fedml.core.distributed.communication.message import Message
from torch import nn

from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget
from pickled import Runs, dtype, floats, message, name, number, numbers, pickled, raw, saved, storage, tensor, text
from plain_values import SMALL


class Case(NamedTuple):
    name: str
    content: bytes
    kind: str
    words: str = ""
    budget: Budget = SMALL


class Text(str):
    pass


class Shadow(dict):
    pass


def with_attribute(value, **attributes):
    for key, found in attributes.items():
        setattr(value, key, found)
    return value


def sparse(layout: str) -> torch.Tensor:
    return getattr(torch.eye(3), layout)()


def nested(depth: int, make: bytes = b"\x85", start: bytes = b")") -> bytes:
    return start + make * depth


def twice(times: int, start: bytes = b")") -> bytes:
    """A tuple that holds the same tuple twice, and so on: a tree of 2 ** times."""
    return start + b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(times))


def array(state: bytes) -> bytes:
    made = (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85" + raw(b"b") + b"\x87R"
    )
    return made + state + b"b"


def array_state(shape: bytes, kind: bytes, data: bytes, fortran: bytes = b"\x89") -> bytes:
    return b"(K\x01" + shape + kind + fortran + data + b"t"


def buffer(data: bytes, kind: bytes, shape: bytes, order: str = "C") -> bytes:
    return name("numpy.core.numeric", "_frombuffer") + b"(" + data + kind + shape + text(order) + b"tR"


def scalar(kind: bytes, data: bytes) -> bytes:
    return name("numpy.core.multiarray", "scalar") + kind + data + b"\x86R"


def dtype_call(*arguments: bytes) -> bytes:
    return name("numpy", "dtype") + b"(" + b"".join(arguments) + b"tR"


def big_endian() -> bytes:
    return pickled(b"}", text("little_endian"), b"\x89s", protocol=2)


def view_of(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    return pickled(tensor(floats(count), number(offset), numbers(*size), numbers(*stride)))


def deep_messages(depth: int) -> bytes:
    head = name(Message.__module__, "Message") + b")\x81}(" + text("type") + b"N" + text("sender_id") + b"N"
    return pickled((head + text("receiver_id") + b"N" + text("msg_params")) * depth, b"N", b"ub" * depth)


EMPTY = b")"
ONE = saved(b"\x00" * 4, 1)
CODE = [
    Case("os.system", pickle.dumps(Runs(os.system, "true")), "names code", "posix.system"),
    Case("eval", pickle.dumps(Runs(eval, "1")), "names code", "builtins.eval"),
    Case("getattr chain", pickle.dumps(Runs(getattr, "", "join")), "names code", "builtins.getattr"),
    Case("a method of the message", pickle.dumps(Message.init), "names code"),
    Case(
        "a dotted name",
        pickled(text("fedml.core.distributed.communication.message"), text("Message.init"), b"\x93"),
        "names code",
        "Message.init",
    ),
    Case("a dotted name in an allowed module", pickled(text("torch"), text("Size.__init__"), b"\x93"), "names code"),
    Case(
        "a name with line breaks",
        pickled(text("os\n\x1b[2J"), text("sys\u202etem"), b"\x93"),
        "names code",
        r"os\n\x1b[2J",
    ),
    Case("a name of 900 kB", pickled(text("o" * 900_000), text("s"), b"\x93"), "names code"),
    Case("a name that is bytes", pickled(raw(b"os"), text("system"), b"\x93"), "broken"),
    Case("a name that is a tuple", pickled(nested(5000), text("system"), b"\x93"), "broken"),
    Case("INST", pickled(b"(ios\nsystem\n"), "unsupported", "0x69"),
    Case("OBJ", pickled(b"(", name("torch", "Size"), b"o"), "unsupported", "0x6f"),
    Case("EXT1", pickled(b"\x82\x01"), "unsupported", "0x82"),
    Case("NEWOBJ_EX", pickled(name("torch", "Size"), b")}\x92"), "unsupported", "0x92"),
    Case("NEWOBJ of an array", pickled(name("numpy", "ndarray"), numbers(2), b"\x85\x81"), "unsupported"),
    Case(
        "NEWOBJ of a message with arguments",
        pickled(name(Message.__module__, "Message"), b"K\x01\x85\x81"),
        "unsupported",
    ),
    Case("REDUCE of a message", pickled(name(Message.__module__, "Message"), b")R"), "broken"),
    Case("REDUCE of ndarray", pickled(name("numpy", "ndarray"), numbers(2), b"\x85R"), "broken"),
    Case("REDUCE of text", pickled(text("os"), b")R"), "broken"),
    Case("REDUCE of a tensor", pickled(tensor(floats(1), number(0), EMPTY, EMPTY), b")R"), "broken"),
    Case("REDUCE with a list", pickled(name("collections", "OrderedDict"), b"]R"), "broken"),
    Case(
        "BUILD on a function",
        pickled(name("torch._utils", "_rebuild_tensor_v2"), b"}", text("__defaults__"), b")sb"),
        "unsupported",
    ),
    Case("BUILD on a class", pickled(name("torch", "Size"), b"}", text("x"), b"K\x01sb"), "unsupported"),
    Case(
        "BUILD on a tensor",
        pickled(tensor(floats(1), number(0), EMPTY, EMPTY), b"}", text("data"), b"Nsb"),
        "unsupported",
    ),
    Case("BUILD on a list", pickled(b"]}b"), "unsupported"),
    Case("BUILD on a dict", pickled(b"}}", text("items"), b"Nsb"), "unsupported"),
    Case("BUILD on a dtype's type", pickled(name("torch", "float32"), b"}b"), "unsupported"),
    Case("a shadowed items", pickled(name("collections", "OrderedDict"), b")R}", text("items"), b"Nsb"), "unsupported"),
    Case("a subclass of dict", pickle.dumps(with_attribute(Shadow(), get=1)), "names code"),
    Case("a subclass of str", pickle.dumps(Text("weight")), "names code"),
    Case("a persistent id", pickled(b"(", text("storage"), b"tQ"), "unsupported", "persistent"),
    Case("a persistent id as text", pickled(b"P1\n"), "unsupported"),
    Case("an out-of-band buffer", pickled(b"\x97", protocol=5), "unsupported", "0x97"),
    Case("a set", pickle.dumps({1}), "unsupported"),
    Case("a frozenset", pickle.dumps(frozenset({1})), "unsupported"),
    Case("complex", pickle.dumps(1j), "names code"),
    Case("range", pickle.dumps(range(10**9)), "names code", "range"),
    Case("slice", pickle.dumps(slice(1)), "names code"),
    Case("set(range)", pickle.dumps(Runs(set, range(10**9))), "names code"),
    Case("a module", pickle.dumps(nn.Linear(1, 1)), "names code"),
    Case("getitem of a device", pickle.dumps(torch.device("cpu")), "names code", "torch.device"),
    Case("name of a storage outside", pickled(name("torch", "FloatStorage")), "names code"),
    Case("torch.load inside", pickled(name("torch.serialization", "load")), "names code"),
]
SIZES = [
    Case("bytearray(2**31)", pickled(name("builtins", "bytearray"), number(2**31), b"\x85R"), "unsupported"),
    Case("bytearray(list)", pickled(name("builtins", "bytearray"), b"]\x85R"), "unsupported"),
    Case("bytes(2**31)", pickled(name("builtins", "bytes"), number(2**31), b"\x85R"), "unsupported"),
    Case(
        "bytes of a bytes of bytes", pickled(name("builtins", "bytes"), raw(b"a"), text("latin1"), b"\x86R"), "broken"
    ),
    Case(
        "encode as something else", pickled(name("_codecs", "encode"), text("a"), text("zip"), b"\x86R"), "unsupported"
    ),
    Case(
        "encode what is not Latin-1", pickled(name("_codecs", "encode"), text("模"), text("latin1"), b"\x86R"), "broken"
    ),
    Case("torch.Size(range)", pickle.dumps(Runs(torch.Size, range(10**9))), "names code"),
    Case("torch.Size of negatives", pickled(name("torch", "Size"), numbers(-1), b"\x85R"), "bad tensor"),
    Case("torch.Size of itself", pickled(name("torch", "Size"), b"]\x85R"), "bad tensor"),
    Case("10**400", pickled(number(10**400)), "too large", "64 bits"),
    Case("2**64", pickled(number(2**64)), "too large", "64 bits"),
    Case("LONG4", pickled(number(10**700)), "unsupported"),
    Case("LONG4 of a negative length", pickled(b"\x8b" + struct.pack("<i", -1)), "unsupported"),
    Case("LONG in digits", pickled(b"L" + b"9" * 5000 + b"L\n"), "unsupported"),
    Case("INT in digits", pickled(b"I" + b"9" * 5000 + b"\n"), "unsupported"),
    Case("BINBYTES8 of 2**62", pickled(b"\x8e" + struct.pack("<Q", 2**62)), "broken", "past the end"),
    Case("BINBYTES8 of 2**64 - 1", pickled(b"\x8e" + b"\xff" * 8), "broken"),
    Case("BYTEARRAY8 of 2**62", pickled(b"\x96" + struct.pack("<Q", 2**62), protocol=5), "broken"),
    Case("BINUNICODE8 of 2**62", pickled(b"\x8d" + struct.pack("<Q", 2**62)), "broken"),
    Case("BINBYTES of 4 GB", pickled(b"B" + b"\xff" * 4), "broken"),
    Case("FRAME of 2**63", pickled(b"\x95" + struct.pack("<Q", 2**63), b"N"), "broken"),
    Case("a memo index never put", pickled(b"j" + b"\xff" * 4), "broken"),
    Case("a text of more than 1 MiB", pickled(text("a" * (2**20 + 1))), "too large", "characters"),
    Case("texts beyond the budget", pickled(b"(", text("a" * 1_000_000) * 5, b"t"), "too large"),
    Case("bytes beyond the budget", pickled(b"(", raw(b"a" * 3_000_000) * 2, b"t"), "too large"),
    Case("one wide character", pickled(text("a" * 900_000 + "😀")), "too large"),
    Case("many empty lists", pickled(b"(", b"]" * 60_000, b"t"), "too large"),
    Case("many dictionaries", pickled(b"(", b"}" * 60_000, b"t"), "too large"),
    Case("many marks", pickled(b"(" * 60_000), "too large"),
    Case("many numbers", pickled(b"(", b"K\x01" * 25_000, b"t"), "too many objects", "20000", Budget(10**8, 20_000)),
    Case("many instructions", pickled(b"N", b"q\x00" * 100_000), "too many objects", "", Budget(10**8, 20_000)),
    Case("many memo entries", pickled(b"N", b"\x94" * 60_000), "too large"),
    Case(
        "the same array many times",
        pickled(
            b"(",
            floats(1000),
            b"q\x00",
            b"".join(tensor(b"h\x00", number(0), numbers(1000), numbers(1)) for _ in range(2000)),
            b"t",
        ),
        "too large",
    ),
    Case(
        "the same text encoded many times",
        pickled(
            text("a" * 100_000),
            b"q\x00",
            b"".join(name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R" for _ in range(60)),
        ),
        "too large",
    ),
    Case("no time", pickled(b"(" + b"N" * 1000 + b"t"), "too slow", "", Budget(10**7, seconds=0)),
]
TREES = [
    Case("a list in itself", pickled(b"]q\x00h\x00a"), "too deep", "itself"),
    Case("a dict in itself", pickled(b"}q\x00", text("a"), b"h\x00s"), "too deep", "itself"),
    Case(
        "an OrderedDict in itself",
        pickled(name("collections", "OrderedDict"), b")Rq\x00", text("a"), b"h\x00s"),
        "too deep",
        "itself",
    ),
    Case("a tuple in itself", pickled(b"]q\x00h\x00\x85q\x01a"), "too deep", "itself"),
    Case("a ring of three", pickled(b"]q\x00]q\x01]q\x02h\x00aaa"), "too deep", "itself"),
    Case("a list 5,000 deep", pickled(b"]" * 5000, b"a" * 4999), "too deep", "", Budget(10**7)),
    Case("a list 65 deep", pickled(b"]" * 65, b"a" * 64), "too deep"),
    Case(
        "a dictionary 5,000 deep", pickled((b"}" + text("a")) * 5000, b"N", b"s" * 5000), "too deep", "", Budget(10**8)
    ),
    Case("a tuple 100,000 deep", pickled(nested(100_000)), "too deep", "", Budget(10**9)),
    Case("the same as a key", pickled(b"}", nested(100_000), b"Ns"), "unsupported", "key", Budget(10**9)),
    Case("a key of 2**60 tuples", pickled(b"}", twice(60), b"Ns"), "unsupported", "key"),
    Case("a value of 2**60 tuples", pickled(twice(60)), "too many objects", "", Budget(10**7)),
    Case(
        "a value of 3**60 tuples",
        pickled(b")" + b"".join(b"q%ch%ch%c\x87" % (i, i, i) for i in range(60))),
        "too many objects",
        "",
        Budget(10**7),
    ),
    Case(
        "5,000 numbers as keys",
        pickled(b"}(", b"".join(number(4096 * i) + b"N" for i in range(5000)), b"u"),
        "too many objects",
        "numbers as keys",
        Budget(10**7),
    ),
    Case("messages 30,000 deep", deep_messages(30_000), "unsupported", "no plain value", Budget(10**9)),
    Case(
        "OrderedDicts 30,000 deep",
        pickled((name("collections", "OrderedDict") + b")R" + text("a")) * 30_000, b"N", b"s" * 30_000),
        "too deep",
        "",
        Budget(10**9),
    ),
    Case(
        "a nest that is also dropped as _metadata",
        pickled(
            b"N" + (b"\x85" * 30_000) + b"q\x00",
            name("collections", "OrderedDict"),
            b")R}",
            text("_metadata"),
            b"h\x00sb\x86",
        ),
        "too deep",
        "",
        Budget(10**9),
    ),
    Case("a key that is a float", pickled(b"}G" + struct.pack(">d", 1.5) + b"Ns"), "unsupported", "key"),
    Case("a key that is True", pickled(b"}\x88Ns"), "unsupported", "key"),
    Case("a key that is None", pickled(b"}NNs"), "unsupported", "key"),
    Case("a key that is bytes", pickled(b"}", raw(b"k"), b"Ns"), "unsupported", "key"),
    Case("a key that is 2**40", pickled(b"}", number(2**40), b"Ns"), "unsupported", "key"),
    Case("a key that is a tensor", pickled(b"}", tensor(floats(1), number(0), EMPTY, EMPTY), b"Ns"), "unsupported"),
    Case("a key that is a NumPy number", pickled(b"}", scalar(dtype("f4"), raw(b"\0" * 4)), b"Ns"), "unsupported"),
    Case("keys without a value", pickled(b"}(", text("a"), b"u"), "broken"),
    Case("a storage as the value", pickled(floats(1)), "unsupported", "Storage is no plain value"),
    Case("a name as the value", pickled(name("torch", "Size")), "unsupported", "no plain value"),
    Case("a dtype as the value", pickled(name("torch", "float32")), "unsupported", "no plain value"),
    Case("a NumPy dtype as the value", pickled(dtype("f4")), "unsupported", "no plain value"),
    Case("a name deep inside", pickled(b"](", b"}", text("a"), name("torch", "Size"), b"\x85s", b"e"), "unsupported"),
]
FRAMING = [
    Case("nothing", b"", "broken"),
    Case("one byte", b"\x80", "broken"),
    Case("no pickle", b"\x80\x04not a pickle", "unsupported"),
    Case("text", b"GET / HTTP/1.1\r\n\r\n", "broken", "protocol"),
    Case("protocol 0", pickle.dumps([1], 0), "broken", "protocol"),
    Case("protocol 1", pickle.dumps([1], 1), "broken", "protocol"),
    Case("protocol 6", b"\x80\x06N.", "unsupported", "protocol 6"),
    Case("two protocols", b"\x80\x04\x80\x04N.", "unsupported"),
    Case("no STOP", b"\x80\x04N", "broken"),
    Case("STOP at once", pickled(), "broken"),
    Case("STOP early", pickled(b"]K\x01"), "broken"),
    Case("STOP inside a mark", pickled(b"(N"), "broken"),
    Case("two values", pickled(b"NN"), "broken"),
    Case("trailing garbage", pickled(b"N") + b"x", "broken", "1 bytes follow"),
    Case("a second pickle", pickled(b"N") * 2, "broken", "follow"),
    Case("POP", pickled(b"NN0"), "unsupported", "0x30"),
    Case("POP of nothing", pickled(b"0"), "unsupported"),
    Case("POP_MARK", pickled(b"N(1"), "unsupported"),
    Case("DUP", pickled(b"N2\x86"), "unsupported"),
    Case("TUPLE without a mark", pickled(b"t"), "broken"),
    Case("TUPLE1 of nothing", pickled(b"\x85"), "broken"),
    Case("TUPLE3 of two", pickled(b"NN\x87"), "broken"),
    Case("TUPLE2 across a mark", pickled(b"N(N\x86"), "broken"),
    Case("APPEND to nothing", pickled(b"Na"), "broken"),
    Case("APPEND to a tuple", pickled(b")Na"), "broken"),
    Case("APPENDS to a dict", pickled(b"}(Ne"), "broken"),
    Case("APPEND across a mark", pickled(b"](Na"), "broken"),
    Case("SETITEM of a list", pickled(b"]", text("a"), b"Ns"), "broken"),
    Case("SETITEM of a tensor", pickled(tensor(floats(1), number(0), EMPTY, EMPTY), b"K\x00Ns"), "broken"),
    Case("SETITEM of a tuple", pickled(b")K\x00Ns"), "broken"),
    Case("BUILD of nothing", pickled(b"b"), "broken"),
    Case("REDUCE of nothing", pickled(b"R"), "broken"),
    Case("PUT of nothing", pickled(b"q\x00"), "broken"),
    Case("MEMOIZE of nothing", pickled(b"\x94"), "broken"),
    Case("GLOBAL without its end", pickled(b"ctorch"), "broken"),
    Case("GLOBAL that is too long", pickled(b"c" + b"a" * 1000 + b"\nb\n"), "broken"),
    Case("GLOBAL that is no UTF-8", pickled(b"c\xff\n\xfe\n"), "broken"),
    Case("text that is no UTF-8", pickled(b"\x8c\x01\xff"), "broken", "UTF-8"),
    Case("a lone surrogate", pickled(text("\ud800")), "broken", "UTF-8"),
    Case("a memo index of 4 billion", pickled(b"Nr" + b"\xff" * 4), "broken", "memo"),
    Case("a memo index that skips one", pickled(b"Nq\x01"), "broken", "memo"),
    Case("a float cut off", b"\x80\x04G\x00.", "broken"),
    Case("an int cut off", b"\x80\x04J\x00", "broken"),
    Case("a frame cut off", b"\x80\x04\x95\x00", "broken"),
    Case("a long cut off", b"\x80\x04\x8a\x05\x00", "broken"),
    Case("OrderedDict with items", pickled(name("collections", "OrderedDict"), b"]\x85R"), "broken"),
    Case("_metadata and more", pickle.dumps(with_attribute(OrderedDict(), _metadata=1, keys=2)), "unsupported"),
]
TENSORS = [
    Case("larger than its storage", view_of(4, 0, (5,), (1,)), "bad tensor", "number 5 of 4"),
    Case("2**40 of 4", view_of(4, 0, (2**40,), (1,)), "too large"),
    Case("an offset past the end", view_of(4, 4, (1,), (1,)), "bad tensor"),
    Case("an offset of 2**62", view_of(4, 2**62, (1,), (1,)), "bad tensor"),
    Case("an empty one far away", view_of(4, 5, (0,), (1,)), "bad tensor"),
    Case("a negative offset", view_of(4, -1, (1,), (1,)), "bad tensor"),
    Case("a negative stride", view_of(4, 3, (4,), (-1,)), "bad tensor"),
    Case("a negative size", view_of(4, 0, (-4,), (1,)), "bad tensor"),
    Case("two negative sizes", view_of(4, 0, (-2, -2), (2, 1)), "bad tensor"),
    Case("a product that wraps to 4", view_of(4, 0, (2**32, 2**32 + 1), (1, 0)), "too large"),
    Case("a stride that wraps", view_of(4, 0, (2, 2), (2**63, 2**63)), "bad tensor"),
    Case("expanded to 4 TB", view_of(1, 0, (2**40,), (0,)), "too large"),
    Case("an empty one of 2**62", view_of(1, 0, (0, 2**62), (1, 1)), "too large"),
    Case("a size of 2**64 - 1", view_of(1, 0, (2**64 - 1,), (0,)), "too large"),
    Case("a stride of 2**64 - 1", view_of(1, 0, (2,), (2**64 - 1,)), "bad tensor"),
    Case("an offset of 2**64 - 1", view_of(1, 2**64 - 1, (), ()), "bad tensor"),
    Case("strides of another length", view_of(4, 0, (4,), (1, 1)), "bad tensor"),
    Case("40 dimensions", view_of(1, 0, (1,) * 40, (1,) * 40), "bad tensor"),
    Case("a size that is a list", pickled(tensor(floats(1), number(0), b"]", b"]")), "bad tensor"),
    Case(
        "a size of floats", pickled(tensor(floats(1), number(0), b"G" + b"\0" * 8 + b"\x85", numbers(1))), "bad tensor"
    ),
    Case("a size of True", pickled(tensor(floats(1), number(0), b"\x88\x85", numbers(1))), "bad tensor"),
    Case("a size nested deep", pickled(tensor(floats(1), number(0), nested(3000), numbers(1))), "bad tensor"),
    Case(
        "an offset that is a tensor",
        pickled(tensor(floats(1), tensor(floats(1), number(0), EMPTY, EMPTY), EMPTY, EMPTY)),
        "bad tensor",
    ),
    Case("no storage", pickled(tensor(b"N", number(0), EMPTY, EMPTY)), "bad tensor"),
    Case(
        "a tensor for a storage",
        pickled(tensor(tensor(floats(1), number(0), EMPTY, EMPTY), number(0), EMPTY, EMPTY)),
        "bad tensor",
    ),
    Case("hooks", pickled(tensor(floats(1), number(0), EMPTY, EMPTY, hooks=b"}K\x01Ns")), "bad tensor", "hooks"),
    Case("hooks that are none", pickled(tensor(floats(1), number(0), EMPTY, EMPTY, hooks=b"N")), "bad tensor", "hooks"),
    Case("a conjugated view", pickle.dumps(torch.ones(2, dtype=torch.complex64).conj()), "unsupported", "conjugated"),
    Case(
        "a negated view",
        pickled(tensor(floats(1), number(0), EMPTY, EMPTY, more=b"}" + text("neg") + b"\x88s")),
        "unsupported",
        "negated",
    ),
    Case("too few arguments", pickled(name("torch._utils", "_rebuild_tensor_v2"), b")R"), "broken"),
    Case("sparse", pickle.dumps(sparse("to_sparse")), "unsupported", "sparse"),
    Case("sparse csr", pickle.dumps(sparse("to_sparse_csr")), "unsupported", "sparse"),
    Case("meta", pickle.dumps(torch.empty(2, device="meta")), "unsupported", "meta"),
    Case("nested", pickle.dumps(torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])), "unsupported", "nested"),
    Case(
        "quantized",
        pickle.dumps(torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)),
        "unsupported",
        "quantized",
    ),
    Case("with attributes", pickle.dumps(with_attribute(torch.ones(2), clone=1)), "unsupported", "attributes"),
    Case(
        "a parameter with attributes",
        pickle.dumps(with_attribute(nn.Parameter(torch.ones(2)), clone=1)),
        "unsupported",
        "attributes",
    ),
    Case("a parameter of a list", pickled(name("torch._utils", "_rebuild_parameter"), b"]\x88}\x87R"), "bad tensor"),
    Case(
        "untyped bytes as floats",
        pickled(
            tensor(storage(saved(b"\0" * 4, 4, "torch.storage\nUntypedStorage")), number(0), numbers(1), numbers(1))
        ),
        "bad tensor",
    ),
    Case("a bare storage", pickle.dumps(torch.UntypedStorage(3)), "unsupported", "no plain value"),
    Case(
        "a truth value of 2",
        pickled(tensor(storage(saved(b"\x02", 1, "torch\nBoolStorage")), number(0), EMPTY, EMPTY)),
        "bad tensor",
        "truth",
    ),
    Case(
        "v3 with a NumPy dtype",
        pickled(
            name("torch._utils", "_rebuild_tensor_v3"),
            b"(",
            floats(1),
            number(0),
            EMPTY,
            EMPTY,
            b"\x89}",
            dtype("f4"),
            b"tR",
        ),
        "bad tensor",
    ),
]
STORAGES = [
    Case(
        "zip format",
        pickled(storage((lambda f: (torch.save(torch.ones(1), f), f.getvalue())[1])(io.BytesIO()))),
        "bad tensor",
        "legacy",
    ),
    Case("nothing", pickled(storage(b"")), "bad tensor"),
    Case("text", pickled(name("torch.storage", "_load_from_bytes"), text("a"), b"\x85R"), "bad tensor"),
    Case("another version", pickled(storage(saved(b"\0" * 4, 1, version=pickled(b"K\x01")))), "unsupported", "version"),
    Case("big-endian", pickled(storage(saved(b"\0" * 4, 1, system=big_endian()))), "unsupported", "little-endian"),
    Case("a system that is a list", pickled(storage(saved(b"\0" * 4, 1, system=pickled(b"]")))), "unsupported"),
    Case("meta", pickled(storage(saved(b"\0" * 4, 1, location=text("meta")))), "unsupported", "device"),
    Case("a location of commands", pickled(storage(saved(b"\0" * 4, 1, location=text("cpu\n")))), "unsupported"),
    Case("a long location", pickled(storage(saved(b"\0" * 4, 1, location=text("cuda:" + "1" * 5000)))), "unsupported"),
    Case("a view", pickled(storage(saved(b"\0" * 4, 1, view=b"(" + text("1") + b"K\x00K\x01t"))), "bad tensor"),
    Case("another word", pickled(storage(saved(b"\0" * 4, 1, word=text("module")))), "bad tensor"),
    Case(
        "a class of code", pickled(storage(saved(b"\0" * 4, 1, kind=name("os", "system")))), "names code", "os.system"
    ),
    Case(
        "a tensor's function inside",
        pickled(storage(saved(b"\0" * 4, 1, kind=name("torch._utils", "_rebuild_tensor_v2")))),
        "names code",
    ),
    Case("a storage in a storage", pickled(storage(saved(b"\0" * 4, 1, kind=storage(ONE)))), "names code"),
    Case(
        "quantized",
        pickled(storage(saved(b"\0" * 4, 1, kind=name("torch", "QInt32Storage")))),
        "unsupported",
        "quantized",
    ),
    Case("a module", pickled(storage(saved(b"\0" * 4, 1, word=text("module"), kind=b"N"))), "bad tensor"),
    Case("no keys", pickled(storage(saved(b"\0" * 4, 1, keys=pickled(b"]")))), "bad tensor"),
    Case("another key", pickled(storage(saved(b"\0" * 4, 1, keys=pickled(b"]", text("2"), b"a")))), "bad tensor"),
    Case("two keys", pickled(storage(saved(b"\0" * 4, 1, keys=pickled(b"](", text("1") * 2, b"e")))), "bad tensor"),
    Case("a length that differs", pickled(storage(saved(b"\0" * 4, 1, length=struct.pack("<q", 2)))), "bad tensor"),
    Case("a negative length", pickled(storage(saved(b"", -1))), "bad tensor"),
    Case("a length cut off", pickled(storage(saved(b"", 1, length=b"\0"))), "broken"),
    Case("too few data", pickled(storage(saved(b"\0" * 3, 1))), "bad tensor", "3 bytes"),
    Case("too many data", pickled(storage(saved(b"\0" * 5, 1))), "bad tensor", "5 bytes"),
    Case("2**61 elements", pickled(storage(saved(b"\0" * 4, 2**61 + 1))), "bad tensor"),
    Case("a count that is text", pickled(storage(saved(b"\0" * 4, 1, count=text("1")))), "bad tensor"),
    Case(
        "a persistent id that is text",
        pickled(storage(saved(b"\0" * 4, 1).replace(b"tQ.", b"t0" + text("a") + b"Q."))),
        "unsupported",
    ),
    Case("a list where the storage is", pickled(storage(saved(b"\0" * 4, 1).replace(b"tQ.", b"t."))), "bad tensor"),
]
ARRAYS = [
    Case(
        "ndarray over a buffer",
        pickled(name("numpy", "ndarray"), b"(", numbers(4), text("O"), raw(b"\0" * 32), b"tR"),
        "broken",
    ),
    Case(
        "_frombuffer of objects",
        pickled(buffer(raw(b"\x41" * 8), dtype_call(text("O8"), b"\x89\x88"), numbers(1))),
        "unsupported",
        "O8",
    ),
    Case("_frombuffer of a dtype's name", pickled(buffer(raw(b"\0" * 8), text("O"), numbers(1))), "bad array"),
    Case(
        "_frombuffer of a torch dtype",
        pickled(buffer(raw(b"\0" * 4), name("torch", "float32"), numbers(1))),
        "bad array",
    ),
    Case("_frombuffer larger than the bytes", pickled(buffer(raw(b"\0" * 4), dtype("f4"), numbers(2))), "bad array"),
    Case("_frombuffer smaller than the bytes", pickled(buffer(raw(b"\0" * 8), dtype("f4"), numbers(1))), "bad array"),
    Case(
        "_frombuffer of an array",
        pickled(buffer(buffer(raw(b""), dtype("f4"), numbers(0)), dtype("f4"), numbers(0))),
        "bad array",
    ),
    Case("_frombuffer in order A", pickled(buffer(raw(b"\0" * 4), dtype("f4"), numbers(1), "A")), "bad array"),
    Case("an array of objects", pickle.dumps(np.array([{}], dtype=object)), "unsupported", "O8"),
    Case("objects from a list", pickled(array(array_state(numbers(1), dtype("f4"), b"]Na"))), "bad array"),
    Case("fixed text", pickle.dumps(np.array(["abc"])), "unsupported", "U3"),
    Case("fixed bytes", pickle.dumps(np.array([b"abc"])), "unsupported", "S3"),
    Case("a scalar of text", pickle.dumps(np.str_("abc")), "unsupported"),
    Case("dates", pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]")), "unsupported", "M8"),
    Case("structured", pickle.dumps(np.zeros(1, dtype=[("a", "f4")])), "unsupported", "V4"),
    Case(
        "structured by state",
        pickled(
            array(
                array_state(
                    numbers(1),
                    dtype_call(text("f4"), b"\x89\x88")
                    + b"(K\x03"
                    + text("<")
                    + b"N"
                    + b"("
                    + text("a")
                    + b"t"
                    + b"}K\x04K\x01K\x00tb",
                    raw(b"\0" * 4),
                )
            )
        ),
        "bad array",
    ),
    Case("long double", pickle.dumps(np.longdouble(1)), "unsupported"),
    Case("big-endian", pickle.dumps(np.ones(1, dtype=">f4")), "unsupported", "little-endian"),
    Case("a dtype of a list", pickled(dtype_call(b"]", b"\x89\x88")), "unsupported"),
    Case("a dtype with align", pickled(dtype_call(text("f4"), b"\x88\x88")), "unsupported"),
    Case(
        "a dtype compared with a tensor",
        pickled(dtype_call(text("f4"), tensor(floats(2), number(0), numbers(2), numbers(1)), b"\x88")),
        "unsupported",
    ),
    Case(
        "a dtype with a tensor in its state",
        pickled(
            dtype_call(text("f4"), b"\x89\x88"),
            b"(K\x03",
            text("<"),
            tensor(floats(2), number(0), numbers(2), numbers(1)),
            b"NNNNNtb",
        ),
        "bad array",
    ),
    Case("a dtype filled twice", pickled(dtype("f4"), b"(K\x03", text("<"), b"NNNNNNtb"), "bad array"),
    Case(
        "a dtype that is not filled", pickled(scalar(dtype_call(text("f4"), b"\x89\x88"), raw(b"\0" * 4))), "bad array"
    ),
    Case("an array that is not filled", pickled(array(b"")[:-1]), "unsupported", "without data"),
    Case(
        "an array filled twice",
        pickled(
            array(array_state(numbers(0), dtype("f4"), raw(b""))), array_state(numbers(0), dtype("f4"), raw(b"")), b"b"
        ),
        "bad array",
    ),
    Case("an array of 2**62", pickled(array(array_state(numbers(2**62), dtype("f4"), raw(b"")))), "too large"),
    Case("an empty array of 2**62", pickled(array(array_state(numbers(0, 2**62), dtype("f4"), raw(b"")))), "too large"),
    Case(
        "an array whose product wraps",
        pickled(array(array_state(numbers(2**32, 2**32), dtype("u1"), raw(b"")))),
        "too large",
    ),
    Case("a negative shape", pickled(array(array_state(numbers(-1), dtype("f4"), raw(b"\0" * 4)))), "bad array"),
    Case("40 dimensions", pickled(array(array_state(numbers(*[1] * 40), dtype("f4"), raw(b"\0" * 4)))), "bad array"),
    Case("too few bytes", pickled(array(array_state(numbers(2), dtype("f4"), raw(b"\0" * 7)))), "bad array"),
    Case(
        "a truth value of 2",
        pickled(array(array_state(numbers(1), dtype("b1", "|"), raw(b"\x02")))),
        "bad array",
        "truth",
    ),
    Case("a scalar of 8 bytes for 4", pickled(scalar(dtype("f4"), raw(b"\0" * 8))), "bad array"),
    Case("a scalar of text", pickled(scalar(dtype("f4"), text("abcd"))), "bad array"),
    Case("a state of four", pickled(array(b"(K\x01)" + dtype("f4") + b"\x89t")), "bad array"),
    Case(
        "an order that is a tensor",
        pickled(array(array_state(EMPTY, dtype("f4"), raw(b"\0" * 4), fortran=b"]"))),
        "bad array",
    ),
    Case(
        "its own data",
        pickled(
            name("numpy.core.multiarray", "_reconstruct"),
            name("numpy", "ndarray"),
            b"K\x00\x85",
            raw(b"b"),
            b"\x87Rq\x00",
            array_state(numbers(1), dtype("f4"), b"h\x00"),
            b"b",
        ),
        "bad array",
    ),
]
MESSAGES = [
    Case("no message", pickle.dumps({"msg_type": 3}), "broken", "no FedML message"),
    Case("a message without a state", pickled(name(Message.__module__, "Message"), b")\x81"), "broken"),
    Case("a replaced get_type", message(b"", more=text("get_type") + b"K\x03"), "unsupported", "get_type"),
    Case("a replaced class", message(b"", more=text("__class__") + b"N"), "unsupported", "__class__"),
    Case("an attribute that is a number", message(b"", more=b"K\x05N"), "unsupported", "own: 5"),
    Case("an attribute with line breaks", message(b"", more=text("a\nb\x1b[2J") + b"N"), "unsupported", r"a\nb\x1b[2J"),
    Case(
        "an attribute left out",
        pickled(name(Message.__module__, "Message"), b")\x81}", text("type"), b"Nsb"),
        "unsupported",
        "missing",
    ),
    Case("slots", pickled(name(Message.__module__, "Message"), b")\x81N}\x86b"), "broken"),
    Case("a state of itself", pickled(name(Message.__module__, "Message"), b")\x81q\x00h\x00b"), "broken"),
    Case(
        "a message in itself",
        message(text("again") + b"h\x00").replace(b")\x81", b")\x81q\x00", 1),
        "unsupported",
        "message inside",
    ),
    Case(
        "a message in a message", message(text("inner") + name(Message.__module__, "Message") + b")\x81"), "unsupported"
    ),
    Case(
        "parameters that are a list",
        message(b"").replace(text("msg_params") + b"}(", text("msg_params") + b"](").replace(b"uub", b"eub"),
        "broken",
        "parameters",
    ),
    Case("no type", message(b"").replace(text("msg_type"), text("msg_tipe")), "broken", "without type"),
    Case("a state twice", message(b"")[:-1] + b"}b.", "broken", "twice"),
]
VALUES = CODE + SIZES + TREES + FRAMING + TENSORS + STORAGES + ARRAYS
HOSTILE = VALUES + MESSAGES
