"""Table of all names that a message may contain, and the decoder's replacement for each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding import arrays, tensors
from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.shapes import MOST_DIMENSIONS, is_shape
from fedml_gradcam_ae.hooks.cross_silo.decoding.storages import load_storage
from fedml_gradcam_ae.hooks.cross_silo.decoding.unfinished_message import UnfinishedMessage
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Name, Refusal, argument_count

ORDERED = 600  # Bytes that the ledger counts for an empty OrderedDict.
# The dtypes that a message may name.
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 complex128"
EIGHT_BITS = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"  # not in every torch


def _ordered(arguments: tuple[Any, ...], ledger: Ledger) -> OrderedDict[Any, Any]:
    argument_count("OrderedDict", len(arguments), (0,))
    ledger.take(ORDERED)
    return OrderedDict()


def _bytes(arguments: tuple[Any, ...], ledger: Ledger) -> memoryview:
    argument_count("bytes", len(arguments), (0, 1))
    if not arguments:
        return memoryview(b"")
    if type(arguments[0]) is not memoryview:
        raise Undecodable("unsupported", "bytes that are not made from bytes")
    return arguments[0]


def _encode(arguments: tuple[Any, ...], ledger: Ledger) -> memoryview:
    """Return the bytes of a Latin-1 text, one for each character; pickle protocol 2 writes bytes in this way."""
    argument_count("encode", len(arguments), (2,))
    text, encoding = arguments
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise Undecodable("unsupported", "text with another encoding than Latin-1")
    ledger.take(len(text))
    return memoryview(text.encode("latin1"))


def _size(arguments: tuple[Any, ...], ledger: Ledger) -> tuple[int, ...]:
    argument_count("torch.Size", len(arguments), (1,))
    if not is_shape(arguments[0]):
        raise Undecodable("bad tensor", f"a torch.Size of no tuple of at most {MOST_DIMENSIONS} integers from 0 on")
    return arguments[0]


# The replacement for each pair (module, name) that a message may contain.
TABLE: dict[tuple[str, str], Any] = {
    ("builtins", "bytes"): Name("bytes", _bytes),
    ("builtins", "bytearray"): Name("bytearray", _bytes),
    ("__builtin__", "bytes"): Name("bytes", _bytes),
    ("__builtin__", "bytearray"): Name("bytearray", _bytes),
    ("_codecs", "encode"): Name("encode", _encode),
    ("collections", "OrderedDict"): Name("OrderedDict", _ordered),
    ("torch", "Size"): Name("torch.Size", _size),
    ("torch.storage", "_load_from_bytes"): Name("a storage", load_storage),
    ("torch._utils", "_rebuild_tensor_v2"): Name("a tensor", tensors.rebuild_v2),
    ("torch._utils", "_rebuild_tensor_v3"): Name("a tensor", tensors.rebuild_v3),
    ("torch._utils", "_rebuild_parameter"): Name("a parameter", tensors.rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Refusal("a parameter with attributes"),
    ("torch._utils", "_rebuild_sparse_tensor"): Refusal("a sparse tensor (make it dense first)"),
    ("torch._utils", "_rebuild_nested_tensor"): Refusal("a nested tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): Refusal("a meta tensor, which has no data"),
    ("torch._utils", "_rebuild_qtensor"): Refusal("a quantized tensor (dequantize it first)"),
    ("torch._utils", "_rebuild_wrapper_subclass"): Refusal("a tensor of a subclass that has no data of its own"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): Refusal("a tensor of a device that is no CPU or GPU"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): Refusal("a tensor of a device that is no CPU or GPU"),
    ("torch._tensor", "_rebuild_from_type_v2"): Refusal("a tensor of a subclass, or with attributes"),
    ("numpy", "ndarray"): Name("numpy.ndarray"),
    ("numpy", "dtype"): Name("numpy.dtype", arrays.make_dtype),
    ("fedml.core.distributed.communication.message", "Message"): Name("a FedML message", new=UnfinishedMessage),
}
for _core in ("numpy.core", "numpy._core"):
    TABLE |= {
        (f"{_core}.multiarray", "_reconstruct"): Name("an array", arrays.make_array),
        (f"{_core}.multiarray", "scalar"): Name("a scalar", arrays.make_scalar),
        (f"{_core}.numeric", "_frombuffer"): Name("an array", arrays.from_buffer),
    }
TABLE |= {("torch", name): getattr(torch, name) for name in f"{DTYPES} {EIGHT_BITS}".split() if hasattr(torch, name)}
