"""Decoding of dense PyTorch tensors: each is checked against its storage and copied out of it once."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import Any

import numpy as np
import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.shapes import MOST_DIMENSIONS, check_shape, is_dense, is_shape
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Storage, argument_count

TENSOR = 1024  # Bytes that the ledger counts for a tensor, beside its data.
BUILDING = 75  # Number of plain instructions that take as much time as building a tensor, beside those of the call.
# NumPy's codes by size in bytes: to copy elements, any dtype of the same size will do.
SIZES = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
ELEMENT: dict[int, np.dtype[Any]] = {size: np.dtype(code) for size, code in SIZES.items()}


def rebuild_v2(arguments: tuple[Any, ...], ledger: Ledger) -> torch.Tensor:
    """Return the result of `torch._utils._rebuild_tensor_v2`.

    Its arguments are (storage, offset, size, stride, requires_grad, hooks[, metadata]). The tensor requires no gradient
    here.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the arguments are wrong; see `tensor`.
    """
    argument_count("_rebuild_tensor_v2", len(arguments), (6, 7))
    storage, offset, size, stride, _, hooks = arguments[:6]
    if type(storage) is not Storage or storage.dtype is None:
        raise Undecodable("bad tensor", "its storage is no storage, or has no type")
    _check_extras(hooks, arguments[6:])
    return tensor(storage, storage.dtype, offset, size, stride, ledger)


def rebuild_v3(arguments: tuple[Any, ...], ledger: Ledger) -> torch.Tensor:
    """Return the result of `torch._utils._rebuild_tensor_v3`.

    Its arguments are (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]). The tensor requires no
    gradient here.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if the arguments are wrong; see `tensor`.
    """
    argument_count("_rebuild_tensor_v3", len(arguments), (7, 8))
    storage, offset, size, stride, _, hooks, dtype = arguments[:7]
    if type(storage) is not Storage or type(dtype) is not torch.dtype:
        raise Undecodable("bad tensor", "its storage is no storage, or its dtype no dtype")
    _check_extras(hooks, arguments[7:])
    return tensor(storage, dtype, offset, size, stride, ledger)


def rebuild_parameter(arguments: tuple[Any, ...], ledger: Ledger) -> torch.Tensor:
    """Return the result of `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`.

    Args:
        arguments: the arguments of the call, as the pickle has them.
        ledger: not used, since the tensor was counted before.

    Returns:
        The tensor itself, which requires no gradient here.

    Raises:
        Undecodable: if the arguments are wrong.
    """
    argument_count("_rebuild_parameter", len(arguments), (3,))
    if type(arguments[0]) is not torch.Tensor:
        raise Undecodable("bad tensor", "a parameter without a tensor")
    _check_extras(arguments[2], ())
    return arguments[0]


def _check_extras(hooks: Any, metadata: tuple[Any, ...]) -> None:
    if (type(hooks) is not OrderedDict and type(hooks) is not dict) or hooks:
        raise Undecodable("bad tensor", "its hooks are no empty dictionary")
    for flags in metadata:
        if type(flags) is not dict or flags:
            raise Undecodable("unsupported", "a tensor that is a conjugated or negated view (resolve it first)")


def tensor(storage: Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any, ledger: Ledger) -> torch.Tensor:
    """Copy a view of a storage into a tensor with memory of its own.

    Args:
        storage: the storage.
        dtype: the dtype of the elements.
        offset: the position of the first element in the storage, in elements.
        size: the shape.
        stride: the strides in elements. A dense layout (channels last, for instance) is kept, any other is made
            contiguous.
        ledger: the ledger that counts the copy.

    Raises:
        Undecodable: if an element would lie outside of the storage, if an argument is wrong, or if the budget does
            not allow the tensor.
    """
    if not is_shape(size) or not is_shape(stride) or len(size) != len(stride) or not is_shape((offset,)):
        expected = f"at most {MOST_DIMENSIONS} integers from 0 on"
        raise Undecodable("bad tensor", f"its offset, size or stride is of another form than {expected}")
    ledger.costly(BUILDING)
    itemsize = dtype.itemsize
    check_shape("bad tensor", size, itemsize, ledger)
    count = prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset - 1
    held = len(storage.data) // itemsize
    if last >= held:
        raise Undecodable("bad tensor", f"its last element would be number {last + 1} of {held} in its storage")
    ledger.take(TENSOR + count * itemsize)
    dense = is_dense(size, stride)
    # The stride of a dimension of size 1 has no meaning, and may be too large for torch.
    steps = tuple(min(step, count) if length == 1 else step for length, step in zip(size, stride, strict=True))
    result = torch.empty_strided(
        size, steps if dense else contiguous(size), dtype=dtype, device="cpu", requires_grad=False
    )
    if count:
        elements = np.frombuffer(storage.data[: held * itemsize], ELEMENT[itemsize])
        memory = result.as_strided((count,), (1,)).view(torch.uint8).numpy()
        if dense:
            memory.view(ELEMENT[itemsize])[:] = elements[offset : offset + count]
        else:
            jumps = tuple(step * itemsize for step in steps)
            view: np.ndarray[Any, Any] = np.ndarray(size, ELEMENT[itemsize], storage.data, offset * itemsize, jumps)
            memory.view(ELEMENT[itemsize]).reshape(size)[...] = view
        if dtype == torch.bool and int(memory.max()) > 1:
            raise Undecodable("bad tensor", "a truth value that is neither 0 nor 1")
    return result


def contiguous(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in elements.

    Args:
        size: the shape.

    Example:
        >>> contiguous((2, 3, 4))
        (12, 4, 1)
    """
    return tuple(prod(max(length, 1) for length in size[index + 1 :]) for index in range(len(size)))
