"""A forward pass of an upload that keeps the output of some layers, for gradients with respect to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.layout import dimensions, layout_of
from fedml_gradcam_ae.networks.evaluating import answer, constants


def run_to_layers(
    network: nn.Module, upload: Upload, images: Tensor, layers: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Return the class scores and the feature maps of some layers, with the graph between them.

    The upload is never copied into the network. Tensors of the upload that need no gradient are constants, so the graph
    begins at the first of the layers. `layout_of` tells where in a layer's output the feature maps are.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layers: dotted names of modules that run once and return feature maps or tokens (images, tokens, channels).

    Returns:
        The scores, (images, classes), and one (images, channels, height, width) per layer.

    Raises:
        ValueError: if a layer does not run, or returns no feature maps.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> upload = {"0.weight": torch.ones(1, 1, 1, 1), "2.weight": torch.tensor([[1.0], [-1.0]]).expand(2, 4)}
        >>> scores, (activations,) = run_to_layers(network, upload, torch.ones(1, 1, 2, 2), layers=["0"])
        >>> scores.tolist(), torch.autograd.grad(scores[0, 1], activations)[0].tolist()
        ([[4.0, -4.0]], [[[[-1.0, -1.0], [-1.0, -1.0]]]])
    """
    found: dict[str, Tensor] = {}
    axes = dimensions(network)

    def keep(name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Tensor | None:
            layout = layout_of(module, output, images, axes)
            if layout is None:
                return None
            torch.set_grad_enabled(True)  # for the rest of a `no_grad` block inside of the network
            maps = layout.to_maps(output)
            found[name] = maps if maps.requires_grad else maps.requires_grad_()
            # A copy, since the next layer may modify its input in place.
            return layout.restored(output, maps)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.enable_grad():
            scores: Tensor = answer(network, upload, images)
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in layers if name not in found]:
        raise ValueError(f"target_layer: {missing[0]!r} gives no feature maps of {len(images)} images.")
    return scores, [found[name] for name in layers]


def slopes_of(
    scores: Tensor, activations: Tensor, given: Tensor | None = None, *, differentiable: bool = False
) -> Tensor:
    """Return the gradient of scores with respect to feature maps.

    Args:
        scores: with a graph to `activations`.
        activations: (images, channels, height, width), the feature maps.
        given: (classes, ...), for each of them a weight of each score, all at once; None: the sum of the scores.
        differentiable: if True, the result has a graph to everything that scores and activations have a graph to.

    Returns:
        The shape of `activations`, with the classes in front if weights are given.

    Raises:
        ValueError: if the scores do not depend on the feature maps in a way that can be differentiated.

    Example:
        >>> activations = torch.tensor([[[[1.0, 2.0]]]], requires_grad=True)
        >>> slopes_of(activations.square().sum(), activations).tolist()
        [[[[2.0, 4.0]]]]
    """
    found = None
    if scores.requires_grad:
        found = _gradient(scores if given is not None else scores.sum(), activations, given, differentiable)
    if found is None:
        raise ValueError(
            "target_layer: the class scores do not depend on the layer's output in a way that can be differentiated "
            "(`detach`, `inference_mode`, or a branch that they do not use): name another layer."
        )
    return found


def _gradient(scores: Tensor, activations: Tensor, given: Tensor | None, differentiable: bool) -> Tensor | None:
    grad = partial(
        torch.autograd.grad, scores, activations, create_graph=differentiable, retain_graph=True, allow_unused=True
    )
    if given is None:
        return grad()[0]
    try:
        return grad(given, is_grads_batched=True)[0]
    except RuntimeError:  # a layer of which torch cannot compute several gradients at a time
        slopes = [grad(one)[0] for one in given]
        return None if slopes[0] is None else torch.stack(slopes)


def maps_of_one_class(
    network: nn.Module,
    upload: Upload,
    images: Tensor,
    layer: str,
    labels: Tensor | None,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return one upload's maps of one class of each image, (images, height, width), at least 0.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layer: dotted name of a module that runs once and returns feature maps or tokens.
        labels: (images,), the class of each image; None takes the upload's own arg-max class.
        weigh: `weigh` for Grad-CAM, `weigh_positions` for LayerCAM.
    """
    tensors = constants(upload, images.device)
    scores, (activations,) = run_to_layers(network, tensors, images, [layer])
    with torch.enable_grad():
        slopes = slopes_of(scores_of(scores, labels), activations)
    return weigh(activations.detach(), slopes).relu()


def scores_of(scores: Tensor, labels: Tensor | None) -> Tensor:
    """Return the score of one class of each image, (images,).

    Args:
        scores: (images, classes).
        labels: (images,), the class; None: the one with the largest score.
    """
    return scores.max(dim=1).values if labels is None else scores.gather(1, labels[:, None])[:, 0]


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
