"""Whether what comes out of the decoder is what it promises."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import numpy as np
import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding import KINDS, Budget, Undecodable, decode_message, decode_value
from fedml_gradcam_ae.hooks.cross_silo.decoding.messages import UNFORESEEN

SMALL = Budget(bytes=4_000_000, objects=20_000, depth=64, seconds=20)
PLAIN = (type(None), bool, int, float, str, bytes)


def check_plain(root: object, budget: Budget) -> None:
    """Assert that a value holds nothing but what the decoder promises; written without the decoder's own code."""
    pending, seen = [(root, 1)], 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        assert seen <= budget.objects
        if type(value) in (dict, OrderedDict):
            assert all(type(key) is str or (type(key) is int and abs(key) < 2**31) for key in value)
            assert not hasattr(value, "_metadata")
            pending += [(item, depth + 1) for item in value.values()]
        elif type(value) in (list, tuple):
            pending += [(item, depth + 1) for item in value]
        elif type(value) is torch.Tensor:
            assert value.layout == torch.strided
            assert value.device.type == "cpu"
            assert not value.requires_grad
            assert value.storage_offset() == 0
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size() <= budget.bytes
            assert not any((value.is_conj(), value.is_neg(), value._is_view()))
        elif type(value) is np.ndarray:
            assert value.base is None
            assert value.flags.owndata
            assert value.dtype.kind in "biufc"
            assert value.nbytes <= budget.bytes
        elif isinstance(value, np.generic):
            assert type(value).__module__ == "numpy"
            assert value.dtype.kind in "biufc"
        else:
            assert type(value) in PLAIN, type(value)
            assert type(value) is not int or -(2**63) <= value < 2**64
            if type(value) is str:
                value.encode()
        if type(value) in (dict, OrderedDict, list, tuple):
            assert depth <= budget.depth


def attempt(content: bytes, budget: Budget = SMALL) -> list[str]:
    """Decode as a message and as a value, check whatever comes out, and return the two messages or types."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for decode in (decode_message, decode_value):
            try:
                result = decode(content, budget)
            except Undecodable as error:
                refused = error
            else:
                if decode is decode_message:
                    result = [result.type, result.sender, result.receiver, result.parameters]
                check_plain(result, budget)
                found.append(type(result).__name__)
                continue
            check_refusal(refused)
            found.append(str(refused))
    return found


def check_refusal(error: Undecodable) -> None:
    """Assert that an error can be counted and logged, and is none of the decoder's own."""
    assert error.kind in KINDS
    assert str(error).isprintable()
    assert len(str(error)) <= 300
    assert UNFORESEEN not in str(error), error
    assert error.__cause__ is None
    assert error.__context__ is None
