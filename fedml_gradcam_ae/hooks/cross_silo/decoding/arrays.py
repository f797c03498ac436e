"""Decoding of NumPy arrays and scalars, which must come with exactly as many bytes as they need."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from typing_extensions import override

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.shapes import MOST_DIMENSIONS, check_shape, is_shape
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Unfinished, argument_count

ARRAY = 256  # Bytes that the ledger counts for an array or a dtype, beside the data.
# The dtypes that are accepted.
CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
DTYPES = {code: np.dtype(code) for code in CODES}
SCALARS = frozenset(dtype.type for dtype in DTYPES.values())  # NumPy's scalar types of these dtypes.


class UnfinishedDtype(Unfinished):
    """Dtype whose byte order the pickle sets later.

    Args:
        code: one of `CODES`.
    """

    __slots__ = ("code", "dtype")
    title = "a dtype"

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype[Any] | None = None

    @override
    def fill(self, state: Any, ledger: Ledger) -> None:
        """Set the byte order; see `Unfinished.fill`."""
        order = state[1] if type(state) is tuple and len(state) == 8 else None
        if self.dtype is not None or type(order) is not str or any(part is not None for part in state[2:5]):
            raise Undecodable("bad array", "a dtype of another form than a plain one's")
        if order not in ("<", "|"):
            raise Undecodable("unsupported", "an array whose numbers are not little-endian")
        self.dtype = DTYPES[self.code]


class UnfinishedArray(Unfinished):
    """Array whose shape and data the pickle sets later."""

    __slots__ = ("value",)
    title = "an array without data"

    def __init__(self) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    @override
    def fill(self, state: Any, ledger: Ledger) -> None:
        """Set shape and data; see `Unfinished.fill`."""
        if self.value is not None or type(state) is not tuple or len(state) != 5 or type(state[3]) is not bool:
            raise Undecodable("bad array", "an array of another form than NumPy writes")
        _, shape, dtype, fortran, data = state
        self.value = array(data, dtype, shape, "F" if fortran else "C", ledger)


def array(data: Any, dtype: Any, shape: Any, order: str, ledger: Ledger) -> np.ndarray[Any, Any]:
    """Copy `data` into a new array.

    Args:
        data: the array's bytes, a memoryview of the message.
        dtype: an `UnfinishedDtype` whose byte order is set.
        shape: the shape of the array.
        order: the memory order, "C" or "F".
        ledger: the ledger that counts the array's bytes.

    Raises:
        Undecodable: if the number of bytes does not match the shape, if another argument is wrong, or if the budget
            does not allow the array.
    """
    kind = _finished(dtype)
    if type(data) is not memoryview or not is_shape(shape):
        raise Undecodable("bad array", f"its data are no bytes or its shape is no tuple of at most {MOST_DIMENSIONS}")
    check_shape("bad array", shape, kind.itemsize, ledger)
    size = prod(shape) * kind.itemsize
    if len(data) != size:
        raise Undecodable("bad array", f"{len(data)} bytes of data for an array of {size} bytes")
    ledger.take(ARRAY + size)
    result: np.ndarray[Any, Any] = np.empty(shape, kind, order="F" if order == "F" else "C")
    result.reshape(-1, order="A").view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    if kind.kind == "b" and size and int(result.view(np.uint8).max()) > 1:
        raise Undecodable("bad array", "a truth value that is neither 0 nor 1")
    return result


def make_dtype(arguments: tuple[Any, ...], ledger: Ledger) -> UnfinishedDtype:
    """Return the result of `numpy.dtype(code, False, True)`, which is the form that NumPy writes.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the arguments are of another form or the dtype is none of `CODES`.
    """
    argument_count("dtype", len(arguments), (3,))
    code, align, copy = arguments
    if type(code) is not str or code not in DTYPES or align is not False or copy is not True:
        found = code[:20] if type(code) is str else "objects"
        raise Undecodable("unsupported", f"an array of {found} (expected numbers)")
    ledger.take(ARRAY)
    return UnfinishedDtype(code)


def make_array(arguments: tuple[Any, ...], ledger: Ledger) -> UnfinishedArray:
    """Return the result of `numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`.

    Args:
        arguments: the three arguments of the call; their values make no difference.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the number of arguments is wrong.
    """
    argument_count("_reconstruct", len(arguments), (3,))
    ledger.take(ARRAY)
    return UnfinishedArray()


def make_scalar(arguments: tuple[Any, ...], ledger: Ledger) -> Any:
    """Return the result of `numpy.core.multiarray.scalar(dtype, data)`.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the arguments are wrong.
    """
    argument_count("scalar", len(arguments), (2,))
    dtype, data = arguments
    return array(data, dtype, (), "C", ledger)[()]


def from_buffer(arguments: tuple[Any, ...], ledger: Ledger) -> np.ndarray[Any, Any]:
    """Return the result of `numpy.core.numeric._frombuffer(data, dtype, shape, order)`.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the arguments are wrong.
    """
    argument_count("_frombuffer", len(arguments), (4,))
    data, dtype, shape, order = arguments
    if type(order) is not str or order not in ("C", "F"):
        raise Undecodable("bad array", "an order that is neither C nor F")
    return array(data, dtype, shape, order, ledger)


def _finished(dtype: Any) -> np.dtype[Any]:
    if type(dtype) is not UnfinishedDtype or dtype.dtype is None:
        raise Undecodable("bad array", "its dtype is no dtype")
    return dtype.dtype
