"""The choice of the layer whose feature maps become heat maps."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fedml_gradcam_ae.heatmaps.forward import run_to_layers
from fedml_gradcam_ae.heatmaps.layout import dimensions, keeps_last_axis, layout_of
from fedml_gradcam_ae.networks.evaluating import evaluating

NO_MAPS = (
    "Networks of texts, graphs or tables have no heat maps: use a rule that compares updates, such as multi_krum, "
    "trimmed_mean or flame."
)


class Output(NamedTuple):
    """A module's output that shows places of the image.

    Attributes:
        name: the module's dotted name.
        size: (height, width) of its feature maps, or of its patches; one number for signals, three for volumes.
        tokens: whether it returns tokens, (images, tokens, channels), rather than feature maps.
        channels_last: whether its channels are the last axis.
    """

    name: str
    size: tuple[int, ...]
    tokens: bool
    channels_last: bool


@contextmanager
def hinting(network: nn.Module) -> Iterator[None]:
    """Say in words what stops the search for a layer, and that networks without images have no heat maps.

    Args:
        network: the architecture.

    Raises:
        ValueError: if the block raises an error of any common kind.
    """
    try:
        yield
    except ValueError as error:
        layers = list(network.modules())
        images = any(isinstance(layer, _ConvNd) for layer in layers)
        if images and not any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in layers):
            raise
        raise ValueError(f"{error} {NO_MAPS}") from error
    except (RuntimeError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(
            f"target_layer: the heat maps of this network cannot be computed: {error}. Name another layer, or use a "
            "rule that compares updates, such as multi_krum, trimmed_mean or flame."
        ) from error


def find_target_layer(network: nn.Module, images: Tensor, name: str = "auto", smallest: int = 1) -> str:
    """Return the dotted name of the layer to take feature maps from.

    `auto` is the end of the last convolutional stage: of all modules that finish at or after the last convolution and
    before any pooling, and on which the class scores depend, the last one among those with the largest maps. So a
    residual block counts with its sum, a dense block with its concatenation, and a squeeze-and-excitation block with
    its maps rather than its weights (`layer4` in ResNet-18, `features` in MobileNetV3 and DenseNet, the last ReLU in
    VGG). A linear layer on maps whose channels come last counts as a convolution (`permute` in a Swin transformer).

    In a vision transformer, which has no stage after its patches are made, `auto` is the last layer whose tokens of
    patches the class scores depend on: before the last attention where a class token is read, the very last where the
    mean of all tokens is.

    Args:
        network: the architecture; it is run once or twice, on its own weights.
        images: (images, channels, height, width), at least one.
        name: `auto`, or the dotted name of a module.
        smallest: `auto` takes an earlier stage if the maps of the last one have fewer positions per side.

    Raises:
        ValueError: if the named module does not exist or has no feature maps, or if `auto` finds no layer.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))
        >>> find_target_layer(network, torch.zeros(1, 1, 6, 6))
        '1'
    """
    outputs = _outputs(network, images)
    if name != "auto":
        return _check_named(network, outputs, name)

    modules = dict(network.named_modules())
    # A module that runs more than once (for example a ReLU that several convolutions share) has no single output.
    calls = Counter(output.name for output in outputs)
    once = [output for output in outputs if calls[output.name] == 1]
    shown = _shown_places(network, images, once)
    found = _last_tokens(
        [output for output in once if output.tokens and shown.get(output.name, 0) > 1], outputs, modules
    )
    if found is not None:
        return found
    maps = [output for output in outputs if not output.tokens]
    anchors = [index for index, output in enumerate(maps) if _is_anchor(modules[output.name], output)]
    if not anchors:
        raise ValueError(
            "target_layer: auto found no convolution (torch.nn.Conv2d) in the network, and Grad-CAM needs feature "
            f"maps: name the layer instead, one of {', '.join(_mapped(outputs)) or 'none'}."
        )
    # Sizes that no convolution has are those of maps whose channels come last, read in the wrong order.
    sizes = {maps[index].size for index in anchors}
    for index in reversed(anchors):
        before_pooling = takewhile(lambda output: not _is_pooling(modules[output.name]), maps[index:])
        stage = [
            output
            for output in before_pooling
            if calls[output.name] == 1 and output.name in shown and output.size in sizes
        ]
        size = max((output.size for output in stage), key=prod, default=(0,))
        if min(size) >= smallest:
            return [output.name for output in stage if output.size == size][-1]
    axes = dimensions(network)
    enough = f", and that has {' x '.join([str(smallest)] * axes)} positions or more" if smallest > 1 else ""
    pixels = " x ".join(map(str, images.shape[1:][-axes:]))
    raise ValueError(
        "target_layer: auto found no layer that runs just once after a convolution, on which the class scores depend "
        f"in a way that can be differentiated{enough} on images of {pixels} pixels: name one."
    )


def _outputs(network: nn.Module, images: Tensor) -> list[Output]:
    """Return the outputs of all submodules that show places of the image, in the order in which they finish."""
    outputs: list[Output] = []
    axes = dimensions(network)

    def record(name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            layout = layout_of(module, output, images[:1], axes)
            if layout is not None:
                tokens = output.dim() < axes + 2
                outputs.append(Output(name, layout.size, tokens, layout.channels_last))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    try:
        with evaluating(network), torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _shown_places(network: nn.Module, images: Tensor, outputs: Sequence[Output]) -> dict[str, int]:
    """Return the outputs on which the class scores depend, by name, each with the number of places that count."""
    generator = torch.Generator().manual_seed(0)

    def grown(tensor: Tensor) -> Tensor:
        """Replace zeros, such as those of a last layer before any training, through which no gradient passes."""
        if not tensor.is_floating_point() or bool(tensor.any()):
            return tensor
        return torch.randn(tensor.shape, generator=generator).mul(0.1).to(tensor)

    names = [output.name for output in outputs]
    weights = {name: grown(tensor) for name, tensor in network.state_dict().items()}
    with evaluating(network):
        scores, maps = run_to_layers(network, weights, images[:1], names)
    if not scores.requires_grad:  # they depend on no output, or not in a way that can be differentiated
        return {}
    slopes = torch.autograd.grad(scores.max(), maps, allow_unused=True)
    return {name: int(slope.any(dim=1).sum()) for name, slope in zip(names, slopes, strict=True) if slope is not None}


def _last_tokens(used: Sequence[Output], outputs: Sequence[Output], modules: dict[str, nn.Module]) -> str | None:
    """Return the last layer with as many patches as the last convolution made.

    Args:
        used: outputs with tokens, of which more than one place counts: a single one is a class token that stands behind
            the patches.
        outputs: all outputs.
        modules: by name.
    """
    made = [output.size for output in outputs if isinstance(modules[output.name], _ConvNd)]
    return next((output.name for output in reversed(used) if output.size in (made[-1:] or [output.size])), None)


def _is_anchor(module: nn.Module, output: Output) -> bool:
    return isinstance(module, _ConvNd) or (output.channels_last and keeps_last_axis(module))


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__module__ == nn.MaxPool2d.__module__


def _mapped(outputs: list[Output]) -> list[str]:
    return sorted({output.name for output in outputs})


def _check_named(network: nn.Module, outputs: list[Output], name: str) -> str:
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
