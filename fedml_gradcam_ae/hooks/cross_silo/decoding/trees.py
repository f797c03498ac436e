"""Last step of decoding: check the size and depth of the built value, and turn memoryviews into bytes.

The size is that which code sees that walks the value: shared parts count as often as they appear.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding.arrays import SCALARS, UnfinishedArray
from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import Ledger
from fedml_gradcam_ae.hooks.cross_silo.decoding.errors import Undecodable
from fedml_gradcam_ae.hooks.cross_silo.decoding.values import Name, Unfinished

# Types of plain values that need no further check.
LEAVES = frozenset({type(None), bool, int, float, torch.Tensor, np.ndarray}) | SCALARS
CONTAINERS = frozenset({list, tuple, dict, OrderedDict})
LONGEST_TEXT = 2**20  # Maximum length of a text in characters.
ENTRY = 500  # Bytes that the ledger counts for a container's entries in the tables of this module.
CHECK = 1024  # Number of containers between two checks of the time.


def finish(root: Any, ledger: Ledger) -> Any:
    """Return `root` with plain values only.

    Lists and dictionaries are changed in place, and shared parts stay shared. The function does not recurse, so deep
    values cannot exhaust the stack.

    Args:
        root: the value that `execution.run` built.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if a value other than a plain one is left, if a container contains itself, or if the tree has too
            many values or is too deep. Shared values count as often as they appear.
    """
    finished: dict[int, tuple[Any, int, int]] = {}
    for number, container in enumerate(inside_out(root, ledger)):
        if number % CHECK == 0:
            ledger.check_time()
        count, depth, values = 1, 1, []
        for child in children(container):
            value, size, height = _finish_child(child, finished, ledger)
            values.append(value)
            count += size
            depth = max(depth, height + 1)
        if count > ledger.budget.objects:
            raise Undecodable("too many objects", f"more than {ledger.budget.objects} values")
        if depth > ledger.budget.depth:
            raise Undecodable("too deep", f"more than {ledger.budget.depth} nested containers")
        finished[id(container)] = (_replace(container, values), count, depth)
    return _finish_child(root, finished, ledger)[0]


def inside_out(root: Any, ledger: Ledger) -> list[Any]:
    """Return all distinct containers in `root`, including itself, each after the containers that it holds.

    Args:
        root: the value.
        ledger: the ledger that counts the cost.

    Raises:
        Undecodable: if a container contains itself, or if the budget is used up.
    """
    order: list[Any] = []
    closed: dict[int, bool] = {}
    pending = [root] if type(root) in CONTAINERS else []
    while pending:
        container = pending[-1]
        if id(container) not in closed:
            inner = children(container)
            ledger.take(ENTRY + 32 * len(inner))
            closed[id(container)] = False
            for child in inner:
                if type(child) in CONTAINERS and not closed.get(id(child), False):
                    if id(child) in closed:
                        raise Undecodable("too deep", "a container that holds itself")
                    pending.append(child)
        else:
            pending.pop()
            if not closed[id(container)]:
                closed[id(container)] = True
                order.append(container)
    return order


def children(container: Any) -> Collection[Any]:
    """Return the items of a list or a tuple, or the values of a dictionary."""
    held: Collection[Any] = container if type(container) in (list, tuple) else container.values()
    return held


def _finish_child(child: Any, finished: dict[int, tuple[Any, int, int]], ledger: Ledger) -> tuple[Any, int, int]:
    kind = type(child)
    if kind in LEAVES:
        return child, 1, 0
    if kind is str:
        if len(child) > LONGEST_TEXT:
            raise Undecodable("too large", f"a text of {len(child)} characters (expected at most {LONGEST_TEXT})")
        return child, 1, 0
    if kind in CONTAINERS:
        return finished[id(child)]
    if kind is memoryview:
        if id(child) not in finished:
            ledger.take(ENTRY + len(child))
            finished[id(child)] = (bytes(child), 1, 0)
        return finished[id(child)]
    if kind is UnfinishedArray and child.value is not None:
        return child.value, 1, 0
    title = child.title if isinstance(child, Name | Unfinished) else kind.__name__
    raise Undecodable("unsupported", f"{title} is no plain value")


def _replace(container: Any, values: list[Any]) -> Any:
    if type(container) is list:
        container[:] = values
    elif type(container) is not tuple:
        for key, value in zip(container, values, strict=True):
            container[key] = value
    elif any(new is not old for new, old in zip(values, container, strict=True)):
        return tuple(values)
    return container
