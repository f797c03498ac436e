"""Decoding of a tensor's storage, as `torch.storage.TypedStorage.__reduce__` writes it.

The format is torch's legacy serialization: five pickles, then the data. The pickles are a magic number, the version,
the writer's system, a persistent id that describes the storage, and the list of the keys of the storages that follow
(here one). The data are each storage's number of elements and its bytes.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.execution import run
from fedml_gradcam_ae.hooks.cross_silo.decoding.literals import read_long_size
from fedml_gradcam_ae.hooks.cross_silo.decoding.machine import Machine
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Refusal, SavedStorage, Storage, argument_count

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # The pickled magic number of torch's legacy format.
VERSION = 1001  # The version of torch's legacy format.
LONGEST_HEADER = 1024  # Headers of at most this many bytes are kept, so that equal ones are read only once.
OBJECT = 1024  # Bytes that the ledger counts for a storage without its data.
DEVICE = re.compile(r"(cpu|(cuda|mps|xpu|npu|hpu)(:\d{1,3})?)")  # Accepted devices; tensors are put on the CPU.
# Torch's typed storages, with the dtypes of their elements.
CLASSES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
QUANTIZED = ("QInt8Storage", "QInt32Storage", "QUInt8Storage", "QUInt4x2Storage", "QUInt2x4Storage")


class StorageClass:
    """Type of a storage.

    Args:
        dtype: the dtype of its elements; None for untyped bytes.
    """

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype


# The module torch.cuda is there as well since storages on a GPU have classes of their own up to torch 1.10.
TABLE: dict[tuple[str, str], Any] = {
    (module, name): StorageClass(dtype) for module in ("torch", "torch.cuda") for name, dtype in CLASSES.items()
}
TABLE |= {(module, "UntypedStorage"): StorageClass(None) for module in ("torch", "torch.storage")}
TABLE |= {("torch", name): Refusal("a quantized tensor (dequantize it first)") for name in QUANTIZED}


def load_storage(arguments: tuple[Any, ...], ledger: Ledger) -> Storage:
    """Return the result of `torch.storage._load_from_bytes(data)`.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Returns:
        The storage, as a view of `data`.

    Raises:
        Undecodable: if the bytes are not exactly one complete storage of a known type.
    """
    argument_count("_load_from_bytes", len(arguments), (1,))
    data = arguments[0]
    if type(data) is not memoryview:
        raise Undecodable("bad tensor", "its storage is no bytes")
    ledger.take(OBJECT)
    machine = Machine(data, TABLE, ledger, storages=True)
    saved, position = run(machine, _header(machine, ledger))
    keys, position = run(machine, position)
    if type(saved) is not SavedStorage or len(saved.fields) != 6:
        raise Undecodable("bad tensor", "the saved object is no storage")
    word, kind, key, location, count, view = saved.fields
    if type(word) is not str or word != "storage" or type(kind) is not StorageClass or view is not None:
        raise Undecodable("bad tensor", "the saved object is no storage, or is part of another one")
    if type(key) is not str or type(keys) is not list or len(keys) != 1 or type(keys[0]) is not str or keys[0] != key:
        raise Undecodable("bad tensor", "not exactly one storage follows")
    if type(location) is not str or not DEVICE.fullmatch(location):
        raise Undecodable("unsupported", "a tensor on a device that is neither a CPU nor a GPU")
    content = data[position + 8 :]
    if type(count) is not int or read_long_size(data, position)[0] != count:
        raise Undecodable("bad tensor", "its storage's length is stated twice, and differs")
    itemsize = 1 if kind.dtype is None else kind.dtype.itemsize
    if count * itemsize != len(content):
        raise Undecodable("bad tensor", f"{len(content)} bytes of data for a storage of {count * itemsize} bytes")
    return Storage(kind.dtype, content)


def _header(machine: Machine, ledger: Ledger) -> int:
    """Check the first three pickles and return the position after them."""
    data, known = machine.data, ledger.header
    if known and data[: len(known)] == known:
        return len(known)
    if data[: len(MAGIC)] != MAGIC:
        raise Undecodable("bad tensor", "its storage is not in torch's legacy format")
    version, position = run(machine, len(MAGIC))
    system, position = run(machine, position)
    if type(version) is not int or version != VERSION or type(system) is not dict:
        raise Undecodable("unsupported", "a storage of another version of torch's legacy format")
    if system.get("little_endian") is not True:
        raise Undecodable("unsupported", "a tensor whose numbers are not little-endian")
    if position <= LONGEST_HEADER:
        ledger.header = bytes(data[:position])
    return position
