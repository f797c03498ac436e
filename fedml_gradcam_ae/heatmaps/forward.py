"""A forward pass of an upload that keeps the output of some layers, for gradients with respect to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.heatmaps.tokens import to_maps, to_tokens, token_grid
from fedml_gradcam_ae.networks.evaluating import answer


def run_to_layers(
    network: nn.Module, upload: Upload, images: Tensor, layers: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Return the class scores and the feature maps of some layers, with the graph between them.

    The upload is never copied into the network. Tensors of the upload that need no gradient are constants, so the graph
    begins at the first of the layers. Of a layer that returns tokens, those of the patches are the feature maps.

    Args:
        network: the architecture, in eval mode.
        upload: a state dict that fits the network.
        images: (images, channels, height, width), on the network's device.
        layers: dotted names of modules that run once and return feature maps or tokens (images, tokens, channels).

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
            grid = None if output.dim() == 4 else token_grid(output.shape[1], *images.shape[-2:])
            maps = output if grid is None else to_maps(output, grid)
            found[name] = maps if maps.requires_grad else maps.requires_grad_()
            # A copy, since the next layer may modify its input in place.
            return maps.clone() if grid is None else to_tokens(output[:, : grid.extra], maps)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.enable_grad():
            scores: Tensor = answer(network, upload, images)
    finally:
        for handle in handles:
            handle.remove()
    return scores, [found[name] for name in layers]


def returns_tokens(network: nn.Module, image: Tensor, layer: str) -> bool:
    """Return whether a layer's output is tokens, (images, tokens, channels), rather than feature maps.

    Args:
        network: the architecture, in eval mode; it is run once, on its own weights.
        image: one image, (1, channels, height, width), on the network's device.
        layer: dotted name of a module.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(2), nn.Linear(4, 2))
        >>> [returns_tokens(network, torch.ones(1, 1, 2, 2), layer) for layer in ("0", "1")]
        [False, True]
    """
    found: list[bool] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(isinstance(output, Tensor) and output.dim() == 3)

    handle = network.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            network(image)
    finally:
        handle.remove()
    return any(found)


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
    constants = {name: tensor.detach().to(images.device) for name, tensor in upload.items()}
    scores, (activations,) = run_to_layers(network, constants, images, [layer])
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(scores_of(scores, labels).sum(), activations)
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
