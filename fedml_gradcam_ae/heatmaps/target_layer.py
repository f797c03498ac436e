"""The choice of the layer whose feature maps become heat maps."""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.networks.evaluating import evaluating


def find_target_layer(network: nn.Module, images: Tensor, name: str = "auto") -> str:
    """Return the dotted name of the layer to take feature maps from.

    `auto` is the end of the last convolutional stage: of all modules that finish at or after the last convolution and
    before any pooling, the last one among those with the largest maps. So a residual block counts with its sum, a dense
    block with its concatenation, and a squeeze-and-excitation block with its maps rather than its weights (`layer4` in
    ResNet-18, `features` in MobileNetV3 and DenseNet, the last ReLU in VGG).

    Args:
        network: the architecture; it is run once, on its own weights.
        images: (images, channels, height, width), at least one.
        name: `auto`, or the dotted name of a module.

    Raises:
        ValueError: if the named module does not exist or has no feature maps, or if `auto` finds no layer.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))
        >>> find_target_layer(network, torch.zeros(1, 1, 6, 6))
        '1'
    """
    outputs = _feature_maps(network, images)
    if name != "auto":
        return _check_named(network, outputs, name)

    modules = dict(network.named_modules())
    convolutions = [index for index, (at, _) in enumerate(outputs) if isinstance(modules[at], nn.Conv2d)]
    if not convolutions:
        raise ValueError(
            "target_layer: auto found no convolution (torch.nn.Conv2d) in the network, and Grad-CAM needs feature "
            f"maps: name the layer instead, one of {', '.join(_mapped(outputs)) or 'none'}."
        )
    # A module that runs more than once (for example a ReLU that several convolutions share) has no single output.
    calls = Counter(at for at, _ in outputs)
    before_pooling = takewhile(lambda output: not _is_pooling(modules[output[0]]), outputs[convolutions[-1] :])
    stage = [(at, size) for at, size in before_pooling if calls[at] == 1]
    if not stage:
        raise ValueError("target_layer: auto found no layer that runs just once after the last convolution: name one.")
    largest = max(height * width for _, (height, width) in stage)
    return [at for at, (height, width) in stage if height * width == largest][-1]


def _feature_maps(network: nn.Module, images: Tensor) -> list[tuple[str, tuple[int, int]]]:
    """Return name and map size of every submodule that returns one 4-D tensor, in the order in which they finish."""
    outputs: list[tuple[str, tuple[int, int]]] = []

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                outputs.append((name, (output.shape[2], output.shape[3])))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    try:
        with evaluating(network), torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__module__ == nn.MaxPool2d.__module__


def _mapped(outputs: list[tuple[str, tuple[int, int]]]) -> list[str]:
    return sorted({name for name, _ in outputs})


def _check_named(network: nn.Module, outputs: list[tuple[str, tuple[int, int]]], name: str) -> str:
    names = [known for known, _ in network.named_modules() if known]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"target_layer: the network has no module {name!r}.{guess} "
            f"Layers with feature maps: {', '.join(_mapped(outputs))}."
        )
    if name not in _mapped(outputs):
        raise ValueError(
            f"target_layer: {name!r} gives no feature maps (images, channels, height, width). "
            f"Layers that do: {', '.join(_mapped(outputs))}."
        )
    return name
