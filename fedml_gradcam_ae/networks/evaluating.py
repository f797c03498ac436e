"""Running a network in eval mode, or on the tensors of an upload, without lasting changes to the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def constants(model: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return a state dict on a device, without gradients, as `answer` takes it.

    Args:
        model: a state dict, on any device.
        device: that of the images.
    """
    return {name: tensor.detach().to(device) for name, tensor in model.items()}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a `with` block; its former mode is restored afterward, also after an error.

    Args:
        network: the network.

    Example:
        >>> network = nn.Dropout()
        >>> with evaluating(network):
        ...     network.training
        False
        >>> network.training
        True
    """
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def answer(network: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Any:
    """Return what the network returns for images, with the given tensors in place of its own.

    A state dict repeats a tied tensor under each of its names, as several objects with one value, which torch would
    refuse as a contradiction. And if one layer has two names, torch would give the layer its own tensor back only
    once. So the tensors are passed without the second names of layers, and torch does not compare tied ones.

    Args:
        network: the architecture; its own tensors stay as they are.
        tensors: a state dict, on the images' device.
        images: (images, channels, height, width).

    Example:
        >>> import torch
        >>> answer(nn.Linear(1, 1, bias=False), {"weight": torch.tensor([[2.0]])}, torch.tensor([[3.0]])).tolist()
        [[6.0]]
    """
    repeated = _second_names(network)
    once = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in repeated}
    return functional_call(network, once, (images,), tie_weights=False)


def _second_names(network: nn.Module) -> set[str]:
    """Return the names of layers that the network also has under an earlier name."""
    first: dict[int, str] = {}
    named = network.named_modules(remove_duplicate=False)
    return {name for name, layer in named if first.setdefault(id(layer), name) != name}
