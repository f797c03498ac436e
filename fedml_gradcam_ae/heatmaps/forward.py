"""A forward pass of an upload that keeps the output of some layers, for gradients with respect to it."""

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
    """Return the class scores and the feature maps of some layers, with the graph between them.

    The upload is never copied into the network. Tensors of the upload that need no gradient are constants, so the graph
    begins at the first of the layers.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layers: dotted names of modules with 4-D output that run once.

    Returns:
        The scores, (images, classes), and one (images, channels, height, width) per layer.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> upload = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> scores, (activations,) = run_to_layers(network, upload, torch.ones(1, 1, 2, 2), layers=["0"])
        >>> scores.tolist(), torch.autograd.grad(scores[0, 1], activations)[0].tolist()
        ([[4.0, -4.0]], [[[[-1.0, -1.0], [-1.0, -1.0]]]])
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            found[name] = output if output.requires_grad else output.requires_grad_()
            return output.clone()  # the next layer may modify its input in place

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
    """Return sum_m alpha_m A^m, alpha_m the mean over positions of the slopes dY/dA^m: (11), and (12) without its ReLU.

    Args:
        activations: (..., channels, height, width), A.
        slopes: the same shape, or one that broadcasts to it.

    Returns:
        (..., height, width).

    Example:
        >>> activations = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> weigh(activations, torch.tensor([[[0.0, 4.0], [0.0, 4.0]]]))
        tensor([[2., 4.],
                [6., 8.]])
    """
    return (slopes.mean(dim=(-2, -1), keepdim=True) * activations).sum(dim=-3)


def weigh_positions(activations: Tensor, slopes: Tensor) -> Tensor:
    """Return LayerCAM's sum_m ReLU(dY/dA^m) A^m, each position by its own slope, without the final ReLU.

    Args:
        activations: (..., channels, height, width), A.
        slopes: the same shape, or one that broadcasts to it.

    Returns:
        (..., height, width).

    Example:
        >>> activations = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> weigh_positions(activations, torch.tensor([[[0.0, 4.0], [-1.0, 4.0]]])).tolist()
        [[0.0, 8.0], [0.0, 16.0]]
    """
    return (slopes.relu() * activations).sum(dim=-3)
