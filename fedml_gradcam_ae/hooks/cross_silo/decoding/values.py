"""Values on the decoder's stack that are not plain: names, unfinished values, storages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable


class Name:
    """Name from the closed table, with the decoder's replacement for calling it.

    Args:
        title: the name, for error messages.
        call: function of (arguments, ledger) that returns the value of a call; None: it may not be called.
        new: function that returns an empty `Unfinished` as an instance of the class; None: it has no instances.
    """

    __slots__ = ("call", "new", "title")

    def __init__(
        self,
        title: str,
        call: Callable[[tuple[Any, ...], Ledger], Any] | None = None,
        new: Callable[[], Unfinished] | None = None,
    ) -> None:
        self.title = title
        self.call = call
        self.new = new


class Unfinished:
    """Base class of values that a pickle creates empty and fills later: arrays, dtypes, messages."""

    __slots__ = ()
    title = "an unfinished value"

    def fill(self, state: Any, ledger: Ledger) -> None:
        """Set the state that the pickle gives.

        Args:
            state: the state, which may be an arbitrary decoded value.
            ledger: the ledger that counts the cost.

        Raises:
            Undecodable: if the state is not of the form that the real class writes, or is set a second time.
        """
        raise NotImplementedError


class Refusal(NamedTuple):
    """Name that benign clients may send and that the decoder refuses with a reason.

    Args:
        reason: what the name stands for.
    """

    reason: str


class Storage:
    """Memory of one or more tensors, as a view of the message.

    Args:
        dtype: the dtype of the elements; None for untyped bytes, whose dtype the tensor names.
        data: the bytes, of shape (bytes,).
    """

    __slots__ = ("data", "dtype")

    def __init__(self, dtype: torch.dtype | None, data: memoryview) -> None:
        self.dtype = dtype
        self.data = data


class SavedStorage:
    """Description of a storage in torch's serialization, which precedes the storage's data.

    Args:
        fields: the persistent id, as the pickle has it.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self.fields = fields


def argument_count(title: str, found: int, allowed: tuple[int, ...]) -> None:
    """Check the number of arguments of a call.

    Args:
        title: the name that is called, for the error message.
        found: the number of arguments.
        allowed: the allowed numbers of arguments.

    Raises:
        Undecodable: if the number is not allowed.
    """
    if found not in allowed:
        expected = " or ".join(map(str, allowed))
        raise Undecodable("broken", f"{title} is called with {found} arguments (expected {expected})")
