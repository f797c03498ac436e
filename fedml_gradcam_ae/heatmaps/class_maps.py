"""Signed Grad-CAM maps of every class, from one forward pass per upload."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.forward import run_to_layers, weigh
from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.parallel import on_each_upload


def class_maps(network: nn.Module, uploads: Sequence[Upload], images: Tensor, layer: str) -> Tensor:
    """Maps sum_m alpha_m^c A^m for every class c: (11), and (12) without its ReLU.

    `grad_cam` makes the same maps by Captum, one class at a time. Only the part of the network above `layer` is
    differentiated, so that at the end of the last stage many classes cost hardly more than one.

    Args:
        network: the architecture; its own weights do not matter. It is run in eval mode.
        uploads: K state dicts that fit it.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module with 4-D output that runs once.

    Returns:
        (clients, images, classes, height, width), on the network's device, float32 for a network in half precision;
        NaN or infinity where an upload's arithmetic overflows.
    """
    return maps_and_outputs(network, uploads, images, layer)[0]


def maps_and_outputs(
    network: nn.Module, uploads: Sequence[Upload], images: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """`class_maps`, and the class scores that they explain, (clients, images, classes), of the same forward passes."""
    with evaluating(network):
        found = on_each_upload(network, uploads, partial(_maps_of, images=images, layer=layer))
    maps, scores = torch.stack([maps for maps, _ in found]), torch.stack([scores for _, scores in found])
    return maps.to(torch.promote_types(maps.dtype, torch.float32)), scores


def _maps_of(network: nn.Module, upload: Upload, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    constants = {name: tensor.detach().to(images.device) for name, tensor in upload.items()}
    scores, (activations,) = run_to_layers(network, constants, images, [layer])
    return maps_of_classes(scores, activations), scores.detach()


def maps_of_classes(scores: Tensor, activations: Tensor, *, differentiable: bool = False) -> Tensor:
    """(images, classes, height, width) of scores (images, classes) and the feature maps that they come from.

    Args:
        scores: with a graph to `activations`.
        activations: (images, channels, height, width).
        differentiable: whether the maps have a graph themselves, to whatever scores and activations have one to.
    """
    number, classes = scores.shape
    each = torch.eye(classes, dtype=scores.dtype, device=scores.device)[:, None, :].expand(classes, number, classes)
    (slopes,) = torch.autograd.grad(scores, activations, each, is_grads_batched=True, create_graph=differentiable)
    return weigh(activations if differentiable else activations.detach(), slopes).transpose(0, 1)
