"""Tied weights: one tensor that a network has under two names or more."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def tied_names(network: nn.Module) -> dict[str, str]:
    """The names under which a state dict repeats a tensor, each with the name of that tensor's parameter.

    >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> second.weight = first.weight
    >>> tied_names(nn.Sequential(first, second))
    {'1.weight': '0.weight'}
    """
    parameters = dict(network.named_parameters())
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and tensor.numel() and tensor.data_ptr():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
            groups.setdefault(place, []).append(name)
    tied: dict[str, str] = {}
    for names in groups.values():
        first = next((name for name in names if name in parameters), names[0])
        tied |= {name: first for name in names if name != first}
    return tied


def with_one_value(model: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The model in which tied names have the value of their parameter.

    Args:
        model: a state dict.
        tied: what `tied_names` found.
    """
    return {name: model[tied.get(name, name)] for name in model}
