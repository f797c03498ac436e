"""Signed Grad-CAM maps of all classes, from one forward pass per upload."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.forward import run_to_layers, slopes_of, weigh
from fedml_gradcam_ae.networks.evaluating import constants, evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload


def class_maps(network: nn.Module, uploads: Sequence[Upload], images: Tensor, layer: str) -> Tensor:
    """Return the maps sum_m alpha_m^c A^m of every class c: (11), and (12) without its ReLU.

    `grad_cam` makes the same maps of one class. Here only the part of the network above `layer` is
    differentiated, so at the end of the last stage many classes cost hardly more than one.

    Args:
        network: the architecture; its own weights are not used. It is run in eval mode.
        uploads: K state dicts that fit the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.

    Returns:
        (clients, images, classes, height, width), on the network's device, float32 for a network in half precision; NaN
        or infinity where an upload's arithmetic overflows.

    Example:
        Feature maps equal to the image; class 1 has its weights with the opposite sign:

        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> upload = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> class_maps(network, [upload], torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), layer="0")[0, 0].tolist()
        [[[1.0, 2.0], [3.0, 4.0]], [[-1.0, -2.0], [-3.0, -4.0]]]
    """
    return maps_and_outputs(network, uploads, images, layer)[0]


def maps_and_outputs(
    network: nn.Module, uploads: Sequence[Upload], images: Tensor, layer: str, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `class_maps` does, and the class scores that the maps explain, of the same forward passes.

    Args:
        network: the architecture; its own weights are not used. It is run in eval mode.
        uploads: K state dicts that fit the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.
        classes: (chosen,), the classes to make maps of; None: all.

    Returns:
        (clients, images, chosen, height, width), and the scores of all classes, (clients, images, classes).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> upload = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> maps, scores = maps_and_outputs(network, [upload], torch.ones(1, 1, 2, 2), layer="0")
        >>> maps.shape, scores.tolist()
        (torch.Size([1, 1, 2, 2, 2]), [[[4.0, -4.0]]])
    """
    with evaluating(network):
        found = on_each_upload(network, uploads, partial(_maps_of, images=images, layer=layer, classes=classes))
    maps, scores = torch.stack([maps for maps, _ in found]), torch.stack([scores for _, scores in found])
    return maps.to(torch.promote_types(maps.dtype, torch.float32)), scores


def _maps_of(
    network: nn.Module, upload: Upload, images: Tensor, layer: str, classes: Tensor | None
) -> tuple[Tensor, Tensor]:
    tensors = constants(upload, images.device)
    scores, (activations,) = run_to_layers(network, tensors, images, [layer])
    chosen = scores if classes is None else scores[:, classes]
    return maps_of_classes(chosen, activations), scores.detach()


def maps_of_classes(scores: Tensor, activations: Tensor, *, differentiable: bool = False) -> Tensor:
    """Return the maps of all classes, (images, classes, height, width).

    Args:
        scores: (images, classes), with a graph to `activations`.
        activations: (images, channels, height, width), the feature maps.
        differentiable: if True, the maps have a graph to everything that scores and activations have a graph to.

    Example:
        >>> activations = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
        >>> maps_of_classes(torch.stack([activations.sum(), -activations.sum()])[None], activations)[0].tolist()
        [[[1.0, 2.0], [3.0, 4.0]], [[-1.0, -2.0], [-3.0, -4.0]]]
    """
    number, classes = scores.shape
    each = torch.eye(classes, dtype=scores.dtype, device=scores.device)[:, None, :].expand(classes, number, classes)
    slopes = slopes_of(scores, activations, each, differentiable=differentiable)
    return weigh(activations if differentiable else activations.detach(), slopes).transpose(0, 1)
