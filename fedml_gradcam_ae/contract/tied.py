"""Tied weights: one tensor that a network has under two or more names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def tied_names(network: nn.Module) -> dict[str, str]:
    """Return the names under which a state dict repeats a tensor, each with the name of that tensor's parameter.

    Args:
        network: the architecture.

    Example:
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
    """Return the model in which tied names have the value of their parameter.

    Args:
        model: a state dict.
        tied: what `tied_names` returned.

    Example:
        >>> import torch
        >>> with_one_value({"0.weight": torch.tensor(1.0), "1.weight": torch.tensor(2.0)}, {"1.weight": "0.weight"})
        {'0.weight': tensor(1.), '1.weight': tensor(1.)}
    """
    return {name: model[tied.get(name, name)] for name in model}
