"""What stands on the decoder's stack beside plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable


class Name:
    """A name out of the closed table, and what the decoder itself does where a pickle calls it.

    Args:
        title: the name, for messages.
        call: takes the arguments and the ledger and returns the value; None: it may not be called.
        new: makes an empty `Unfinished` for an instance of the class; None: there are no instances of it.
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
    """A value that a pickle makes empty and fills later: an array, a dtype, a message."""

    __slots__ = ()
    title = "an unfinished value"

    def fill(self, state: Any, ledger: Ledger) -> None:
        """Take over the state that the pickle gives.

        Raises:
            Undecodable: if it is not of the form that the real class writes, or comes a second time.
        """
        raise NotImplementedError


class Refusal(NamedTuple):
    """A name that honest clients may send and that the decoder does not take.

    Args:
        reason: what it is.
    """

    reason: str


class Storage:
    """The memory that tensors are views of, still in the message.

    Args:
        dtype: what it holds; None: bytes, of which the tensor says what they are.
        data: (bytes,)
    """

    __slots__ = ("data", "dtype")

    def __init__(self, dtype: torch.dtype | None, data: memoryview) -> None:
        self.dtype = dtype
        self.data = data


class SavedStorage:
    """What torch's serialization says of a storage whose data follow."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self.fields = fields


def argument_count(title: str, found: int, allowed: tuple[int, ...]) -> None:
    """Raise Undecodable if `title` is called with another number of arguments."""
    if found not in allowed:
        expected = " or ".join(map(str, allowed))
        raise Undecodable("broken", f"{title} is called with {found} arguments (expected {expected})")
