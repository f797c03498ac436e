"""One forward pass of an upload that stops by at some layers, ready for gradients down to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.networks.evaluating import answer


def run_to_layers(
    network: nn.Module, upload: Upload, images: Tensor, layers: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """The class scores and the feature maps on the way to them, with the graph between them.

    The upload is never copied into the network. Tensors of it that need no gradient are constants, so that the graph
    begins at the first of the layers.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits it.
        images: (images, channels, height, width), on the network's device.
        layers: dotted names of modules with 4-D output that run once.

    Returns:
        (images, classes), and one (images, channels, height, width) per layer.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            found[name] = output if output.requires_grad else output.requires_grad_()
            return output.clone()  # what follows may change its input in place

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.enable_grad():
            scores: Tensor = answer(network, upload, images)
    finally:
        for handle in handles:
            handle.remove()
    return scores, [found[name] for name in layers]


def weigh(activations: Tensor, slopes: Tensor) -> Tensor:
    """sum_m alpha_m A^m with alpha_m the mean over positions of the slopes dY/dA^m: (11), and (12) without its ReLU.

    Args:
        activations: (..., channels, height, width).
        slopes: the same shape, or one that broadcasts to it.

    Returns:
        (..., height, width).
    """
    return (slopes.mean(dim=(-2, -1), keepdim=True) * activations).sum(dim=-3)
