"""Checks of the shapes and strides that a message claims."""

from __future__ import annotations

from math import prod
from typing import Any, TypeGuard

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Kind, Undecodable

MOST_DIMENSIONS = 8  # Maximum number of dimensions, since each costs time in every tensor; models need at most 5.


def is_shape(value: Any) -> TypeGuard[tuple[int, ...]]:
    """Return whether a value is a tuple of at most `MOST_DIMENSIONS` non-negative integers.

    Example:
        >>> is_shape((2, 3)), is_shape([2, 3]), is_shape((2, -3))
        (True, False, False)
    """
    if type(value) is not tuple or len(value) > MOST_DIMENSIONS:
        return False
    return all(type(item) is int and item >= 0 for item in value)


def check_shape(kind: Kind, shape: tuple[int, ...], itemsize: int, ledger: Ledger) -> None:
    """Check that the budget allows a shape, even if it has no elements.

    An empty tensor of shape (0, 2**62, 2**62) takes no memory, and code that computes with its sizes would fail.

    Args:
        kind: the kind of the error, "bad tensor" or "bad array".
        shape: the shape; a size of 0 counts as 1.
        itemsize: the size of an element in bytes.
        ledger: the ledger with the budget.

    Raises:
        Undecodable: if the shape is too large.
    """
    if prod(max(size, 1) for size in shape) * itemsize > ledger.budget.bytes:
        raise Undecodable("too large", f"{kind.removeprefix('bad ')} of shape {shape} is larger than the budget")


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Return whether the elements fill their memory without gap or overlap, in any order of the dimensions.

    Args:
        shape: the sizes of the dimensions.
        stride: the strides of the dimensions, in elements.

    Example:
        >>> is_dense((2, 3), (3, 1)), is_dense((2, 3), (1, 2)), is_dense((2, 3), (0, 1)), is_dense((2, 3), (6, 2))
        (True, True, False, False)
    """
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return True
