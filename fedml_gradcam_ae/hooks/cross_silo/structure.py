"""Exact conversion of a defense's state to JSON and tensors, neither of which can run code when it is read."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

DEEPEST = 32  # Maximum depth of nested containers.
DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,2})?")  # Two digits at most, since torch wraps larger device numbers around.
NOT_FINITE = ("nan", "inf", "-inf")  # Values for which JSON has no number.
# Containers that JSON lacks, by the name that marks them in the structure.
CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered": OrderedDict,
}


def take_apart(value: Any, prefix: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """Separate a value's structure from its tensors.

    Args:
        value: None, booleans, numbers, text, tensors, and lists, tuples, sets and dictionaries of them.
        prefix: the prefix of the tensors' names.

    Returns:
        The structure, fit for `json.dumps(..., allow_nan=False)`, and the tensors by name. The tensors are on the
        CPU, contiguous, and have memory of their own. A tensor that occurs twice is stored once.

    Raises:
        TypeError: for a value of any other type, naming its place, and for containers nested too deep.

    Example:
        >>> take_apart({7: (1, float("inf"))})
        ({'dict': [[7, {'tuple': [1, {'float': 'inf'}]}]]}, {})
    """
    taker = _Taker(prefix)
    return taker.take(value, prefix, DEEPEST), taker.tensors


class _Taker:
    """Separator of one value, which collects the tensors and knows those that it has met before."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.tensors: dict[str, Tensor] = {}
        self._nodes: dict[int, Any] = {}

    def take(self, value: Any, place: str, levels: int) -> Any:
        if levels == 0:
            raise TypeError(f"{place}: nested more than {DEEPEST} levels deep")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, Tensor):
            return self._take_tensor(value, place)
        if isinstance(value, Mapping):
            kind = "ordered" if isinstance(value, OrderedDict) else "dict"
            pairs = [(f"{place}[{key!r}]", key, item) for key, item in value.items()]
            return {
                kind: [[self.take(key, at, levels - 1), self.take(item, at, levels - 1)] for at, key, item in pairs]
            }
        for container in (list, tuple, set, frozenset):
            if isinstance(value, container):
                items = [self.take(item, f"{place}[{i}]", levels - 1) for i, item in enumerate(value)]
                return items if container is list else {container.__name__: items}
        raise TypeError(f"{place}: a checkpoint can hold numbers, text, tensors and containers, not {type(value)}")

    def _take_tensor(self, tensor: Tensor, place: str) -> Any:
        if id(tensor) in self._nodes:
            return self._nodes[id(tensor)]
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise TypeError(f"{place}: a checkpoint can hold dense tensors only, not {tensor.layout}, {tensor.device}")
        name = f"{self.prefix}.{len(self.tensors)}"
        node: dict[str, Any] = {"tensor": name}
        if tensor.device.type == "cuda":
            node["device"] = str(tensor.device)
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        if plain.is_complex():
            node["complex"] = True
            plain = torch.view_as_real(plain)
        self.tensors[name] = plain.clone(memory_format=torch.contiguous_format)
        self._nodes[id(tensor)] = node
        return node


def put_together(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `take_apart` separated.

    Args:
        node: the structure that `take_apart` returned.
        tensors: the tensors by name. A tensor whose CUDA device does not exist here stays on the CPU.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: if the structure is not one that `take_apart` returns.

    Example:
        >>> put_together({"dict": [[7, {"tuple": [1, {"float": "inf"}]}]]}, {})
        {7: (1, inf)}
    """
    built: dict[str, Tensor] = {}

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "tensor" in node:
            name = node["tensor"]
            if name not in built:
                built[name] = _tensor(node, tensors[name])
            return built[name]
        ((kind, content),) = node.items()
        if kind == "float":
            if content not in NOT_FINITE:
                raise ValueError("a float that is neither NaN nor infinity")
            return float(content)
        if not isinstance(content, list):
            raise TypeError(f"the content of a {kind} is no list")
        return CONTAINERS[kind](put(item) for item in content)

    return put(node)


def _tensor(node: Mapping[str, Any], tensor: Tensor) -> Tensor:
    if node.get("complex", False) is not False:
        if tensor.dtype not in (torch.float16, torch.float32, torch.float64) or tensor.shape[-1:] != (2,):
            raise ValueError("a complex tensor that is not made of pairs of floats")
        tensor = torch.view_as_complex(tensor)
    place = node.get("device", "cpu")
    if not isinstance(place, str) or not DEVICE.fullmatch(place):
        raise ValueError("a tensor whose device is neither the CPU nor CUDA")
    device = torch.device(place)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return tensor
    return tensor.to(device)
