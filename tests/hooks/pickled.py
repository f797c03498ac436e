"""A small assembler of pickles."""

from __future__ import annotations

import struct

import numpy as np

MESSAGE = b"cfedml.core.distributed.communication.message\nMessage\n"


def text(value: str) -> bytes:
    """BINUNICODE."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def raw(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    """LONG1, whatever the size."""
    size = value.bit_length() // 8 + 1
    return (b"\x8a" + bytes([size]) if size < 256 else b"\x8b" + struct.pack("<i", size)) + value.to_bytes(
        size, "little", signed=True
    )


def name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def numbers(*values: int) -> bytes:
    """A tuple of ints."""
    return b"(" + b"".join(map(number, values)) + b"t"


def pickled(*parts: bytes, protocol: int = 4) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


def saved(data: bytes, elements: int, of: str = "torch\nFloatStorage", **change: bytes) -> bytes:
    """A storage in torch's legacy format; any of its parts can be replaced."""
    parts = {
        "magic": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        "version": b"\x80\x02M\xe9\x03.",
        "system": pickled(b"}", text("little_endian"), b"\x88s", protocol=2),
        "word": text("storage"),
        "kind": f"c{of}\n".encode(),
        "key": text("1"),
        "location": text("cpu"),
        "count": number(elements),
        "view": b"N",
        "keys": pickled(b"](", text("1"), b"e", protocol=2),
        "length": struct.pack("<q", elements),
        "data": data,
    } | change
    head = parts["magic"] + parts["version"] + parts["system"] + b"\x80\x02("
    body = b"".join(parts[part] for part in ("word", "kind", "key", "location", "count", "view"))
    return head + body + b"tQ." + parts["keys"] + parts["length"] + parts["data"]


def storage(content: bytes) -> bytes:
    """A call of torch's loader of storages."""
    return name("torch.storage", "_load_from_bytes") + raw(content) + b"\x85R"


def tensor(store: bytes, offset: bytes, size: bytes, stride: bytes, *, hooks: bytes = b"}", more: bytes = b"") -> bytes:
    """A tensor, as protocol 2 writes it."""
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + store
        + offset
        + size
        + stride
        + b"\x89"
        + hooks
        + more
        + b"tR"
    )


def floats(count: int) -> bytes:
    """A storage of as many float32."""
    return storage(saved(np.arange(count, dtype=np.float32).tobytes(), count))


def dtype(code: str, order: str = "<") -> bytes:
    """A NumPy dtype."""
    call = name("numpy", "dtype") + text(code) + b"\x89\x88\x87R"
    return call + b"(K\x03" + text(order) + b"NNN" + number(-1) + number(-1) + b"K\x00tb"


def message(parameters: bytes, *, kind: bytes = b"K\x03", sender: bytes = b"K\x01", more: bytes = b"") -> bytes:
    """A pickled message around pickled parameters: pairs of key and value."""
    heads = (text("msg_type") + kind, text("sender") + sender, text("receiver") + b"K\x00")
    state = text("type") + text("3") + text("sender_id") + sender + text("receiver_id") + b"K\x00"
    inner = text("msg_params") + b"}(" + b"".join(heads) + parameters + b"u"
    return pickled(MESSAGE, b")\x81}(", state, inner, more, b"ub")


class Runs:
    """A pickle that runs what it is given."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]
