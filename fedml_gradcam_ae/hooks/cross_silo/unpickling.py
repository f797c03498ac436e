"""Unpickling what came over a network: tensors, numpy arrays and plain containers, and nothing that runs code.

A pickle may name any function of any installed package and have it called. Here only the names below can be looked
up. A tensor in a plain pickle brings its storage as bytes that torch unpickles a second time; those go through
torch's own restricted loader.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch

ALLOWED = {
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "range"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch.nn.parameter", "Parameter"),
}


class ForbiddenPickle(pickle.UnpicklingError):
    """A pickle asked for something other than data."""


def _load_storage(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that can only look up what holds data.

    Args:
        file: a binary file.
        more: further names, as (module, name), with what to use for them.
    """

    def __init__(self, file: io.BytesIO, more: Mapping[tuple[str, str], Any] | None = None) -> None:
        super().__init__(file)
        self._more = dict(more or {})

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle calls `module.name`.

        Raises:
            ForbiddenPickle: if it is not on the list.
        """
        if (module, name) in self._more:
            return self._more[module, name]
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) not in ALLOWED:
            raise ForbiddenPickle(f"a pickle may hold tensors, arrays and containers only, found {module}.{name}")
        return super().find_class(module, name)


def loads(content: bytes, more: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """`pickle.loads` for bytes that nobody vouches for.

    Args:
        content: the pickle.
        more: further names that may be looked up, as (module, name), with what to use for them.

    Raises:
        ForbiddenPickle: if it names anything that is not data.
        Exception: whatever a broken pickle makes pickle raise.
    """
    return RestrictedUnpickler(io.BytesIO(content), more).load()
