"""Running a network in eval mode, or on the tensors of an upload, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode while the block runs, and afterward, also after an error, the mode of before."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def answer(network: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Any:
    """What the network returns for the images with these tensors in the place of its own.

    A state dict has a tied tensor under each of its names, as objects of their own with one value; torch would take
    them for a contradiction. And where one layer has two names, torch would give its tensor back to it only once.

    Args:
        network: the architecture; its own tensors stay as they are.
        tensors: a state dict, on the images' device.
        images: (images, channels, height, width).
    """
    repeated = _second_names(network)
    once = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in repeated}
    return functional_call(network, once, (images,), tie_weights=False)


def _second_names(network: nn.Module) -> set[str]:
    """The names of layers that the network has under an earlier name as well."""
    first: dict[int, str] = {}
    named = network.named_modules(remove_duplicate=False)
    return {name for name, layer in named if first.setdefault(id(layer), name) != name}
