"""Grad-CAM for an attacker: maps that can be differentiated by the weights that they are maps of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def differentiable_grad_cam(
    network: nn.Module, upload: Mapping[str, Tensor], images: Tensor, layer: str, labels: Tensor | None = None
) -> Tensor:
    """The maps (11), (12) of one upload, as `grad_cam` makes them, with a graph back to the upload's tensors.

    The weights alpha are gradients themselves, so the graph goes twice through the part of the network above `layer`.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits it.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module with 4-D output that runs once.
        labels: (images,), the class c of each image; None takes the upload's own arg-max class.

    Returns:
        (images, height, width).
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        found.append(output if output.requires_grad else output.requires_grad_())
        return output.clone()  # what follows may change its input in place

    handle = network.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            scores: Tensor = functional_call(network, dict(upload), (images,))
            chosen = scores.max(dim=1).values if labels is None else scores.gather(1, labels[:, None])[:, 0]
            (slopes,) = torch.autograd.grad(chosen.sum(), found[-1], create_graph=True)
            return (slopes.mean(dim=(2, 3), keepdim=True) * found[-1]).sum(dim=1).relu()
    finally:
        handle.remove()
