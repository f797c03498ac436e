"""A few bytes that make pickle take gigabytes, and the largest of what the decoder takes."""

from __future__ import annotations

import pickle

from pickled import Runs, floats, name, number, numbers, pickled, storage, tensor, text

AMPLIFYING = [
    pickled(name("builtins", "bytearray"), number(2**31), b"\x85R"),  # 31 bytes, 2 GB
    pickle.dumps(Runs(set, range(10**8))),
    pickled(b"N", b"r\xff\xff\xff\x7f"),  # a memo index, 2 GB and more
    pickled(b"N", b"r\xff\xff\xff\xff"),
    pickled(b"(", b"(" * 9000),
    pickled(tensor(floats(1), number(0), numbers(2**30), numbers(0))),
    pickled(tensor(storage(b""), number(0), numbers(2**30), numbers(0))),
    pickled(b"\x8e" + b"\xff" * 8),
    pickled(b"\x95" + b"\xff" * 7 + b"\x7f", b"N"),
    pickled(b"(", b"".join(b"%br%b" % (text("x" * 9), i.to_bytes(4, "little")) for i in range(300_000)), b"t"),
    pickled(text("a" * 9_000_000 + "😀")),
    pickled(b"(", tensor(floats(1000), number(0), numbers(1000, 1000), numbers(1, 0)) * 20, b"t"),
]
