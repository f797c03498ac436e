"""Grad-CAM for attackers: maps that are differentiable with respect to the weights of the upload."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.class_maps import maps_of_classes
from fedml_gradcam_ae.heatmaps.forward import run_to_layers, scores_of, slopes_of, weigh, weigh_positions

MapMethod = Literal["gradcam", "layercam"]


def differentiable_grad_cam(
    network: nn.Module,
    upload: Upload,
    images: Tensor,
    layer: str,
    labels: Tensor | None = None,
    method: MapMethod = "gradcam",
) -> Tensor:
    """Return the maps (11), (12) of one upload, as `grad_cam` makes them, with a graph to the upload's tensors.

    The weights alpha are gradients themselves, so the graph contains the part of the network above `layer` twice.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.
        labels: (images,), the class c of each image; None takes the upload's own arg-max class.
        method: `layercam` returns the maps that `layer_cam` makes.

    Returns:
        (images, height, width).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> weight = torch.ones(1, 1, 1, 1, requires_grad=True)
        >>> upload = {"0.weight": weight, "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> maps = differentiable_grad_cam(network, upload, torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), layer="0")
        >>> maps.tolist(), torch.autograd.grad(maps.sum(), weight)[0].item()
        ([[[1.0, 2.0], [3.0, 4.0]]], 10.0)
    """
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        scores, (activations,) = run_to_layers(network, upload, images, [layer])
    with torch.enable_grad():
        slopes = slopes_of(scores_of(scores, labels), activations, differentiable=True)
        weighted = weigh(activations, slopes) if method == "gradcam" else weigh_positions(activations, slopes)
        return weighted.relu()


def differentiable_class_maps(network: nn.Module, upload: Upload, images: Tensor, layer: str) -> Tensor:
    """Return the maps of one upload, as `class_maps` makes them, with a graph to the upload's tensors.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.

    Returns:
        (images, classes, height, width).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> weight = torch.ones(1, 1, 1, 1, requires_grad=True)
        >>> upload = {"0.weight": weight, "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> maps = differentiable_class_maps(network, upload, torch.ones(1, 1, 2, 2), layer="0")
        >>> maps.shape, torch.autograd.grad(maps[0, 1].sum(), weight)[0].item()
        (torch.Size([1, 2, 2, 2]), -4.0)
    """
    with sdpa_kernel(SDPBackend.MATH):
        scores, (activations,) = run_to_layers(network, upload, images, [layer])
    with torch.enable_grad():
        return maps_of_classes(scores, activations, differentiable=True)
