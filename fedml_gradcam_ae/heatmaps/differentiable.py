"""Grad-CAM for an attacker: maps that can be differentiated by the weights that they are maps of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.class_maps import maps_of_classes
from fedml_gradcam_ae.heatmaps.forward import run_to_layers, weigh


def differentiable_grad_cam(
    network: nn.Module, upload: Upload, images: Tensor, layer: str, labels: Tensor | None = None
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
    scores, (activations,) = run_to_layers(network, upload, images, [layer])
    with torch.enable_grad():
        chosen = scores.max(dim=1).values if labels is None else scores.gather(1, labels[:, None])[:, 0]
        (slopes,) = torch.autograd.grad(chosen.sum(), activations, create_graph=True)
        return weigh(activations, slopes).relu()


def differentiable_class_maps(network: nn.Module, upload: Upload, images: Tensor, layer: str) -> Tensor:
    """The maps of one upload that `class_maps` makes, with a graph back to the upload's tensors.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits it.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module with 4-D output that runs once.

    Returns:
        (images, classes, height, width).
    """
    scores, (activations,) = run_to_layers(network, upload, images, [layer])
    with torch.enable_grad():
        return maps_of_classes(scores, activations, differentiable=True)
