"""The choice of the layer whose feature maps become heat maps."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fedml_gradcam_ae.heatmaps.forward import run_to_layers
from fedml_gradcam_ae.heatmaps.tokens import token_grid
from fedml_gradcam_ae.networks.evaluating import evaluating


class Output(NamedTuple):
    """A module's output that shows places of the image.

    Attributes:
        name: the module's dotted name.
        size: (height, width) of its feature maps, or of its patches.
        tokens: whether it returns tokens, (images, tokens, channels), rather than feature maps.
    """

    name: str
    size: tuple[int, int]
    tokens: bool


def find_target_layer(network: nn.Module, images: Tensor, name: str = "auto", smallest: int = 1) -> str:
    """Return the dotted name of the layer to take feature maps from.

    `auto` is the end of the last convolutional stage: of all modules that finish at or after the last convolution and
    before any pooling, the last one among those with the largest maps. So a residual block counts with its sum, a dense
    block with its concatenation, and a squeeze-and-excitation block with its maps rather than its weights (`layer4` in
    ResNet-18, `features` in MobileNetV3 and DenseNet, the last ReLU in VGG).

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
    found = _last_tokens(network, images, [output for output in outputs if calls[output.name] == 1], modules)
    if found is not None:
        return found
    maps = [output for output in outputs if not output.tokens]
    convolutions = [index for index, output in enumerate(maps) if isinstance(modules[output.name], nn.Conv2d)]
    if not convolutions:
        raise ValueError(
            "target_layer: auto found no convolution (torch.nn.Conv2d) in the network, and Grad-CAM needs feature "
            f"maps: name the layer instead, one of {', '.join(_mapped(outputs)) or 'none'}."
        )
    # Sizes that no convolution has are those of maps whose channels come last, read in the wrong order.
    sizes = {maps[index].size for index in convolutions}
    for index in reversed(convolutions):
        before_pooling = takewhile(lambda output: not _is_pooling(modules[output.name]), maps[index:])
        stage = [output for output in before_pooling if calls[output.name] == 1 and output.size in sizes]
        size = max((output.size for output in stage), key=lambda size: size[0] * size[1], default=(0, 0))
        if min(size) >= smallest:
            return [output.name for output in stage if output.size == size][-1]
    raise ValueError(
        "target_layer: auto found no layer that runs just once after a convolution"
        + (f" and has {smallest} x {smallest} positions or more" if smallest > 1 else "")
        + f" on images of {images.shape[-2]} x {images.shape[-1]} pixels: name one."
    )


def _outputs(network: nn.Module, images: Tensor) -> list[Output]:
    """Return the outputs of all submodules that show places of the image, in the order in which they finish."""
    outputs: list[Output] = []

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if output.dim() == 4:
                outputs.append(Output(name, (output.shape[2], output.shape[3]), tokens=False))
            elif output.dim() == 3 and images.dim() == 4 and len(output) == 1:
                grid = token_grid(output.shape[1], images.shape[2], images.shape[3])
                if grid is not None:
                    outputs.append(Output(name, (grid.height, grid.width), tokens=True))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    try:
        with evaluating(network), torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _last_tokens(
    network: nn.Module, images: Tensor, outputs: Sequence[Output], modules: dict[str, nn.Module]
) -> str | None:
    """Return the last layer with as many patches as the last convolution made, if the class scores depend on them."""
    made = [output.size for output in outputs if isinstance(modules[output.name], nn.Conv2d)]
    tokens = [output.name for output in outputs if output.tokens and output.size in (made[-1:] or [output.size])]
    if not tokens:
        return None
    generator = torch.Generator().manual_seed(0)

    def grown(tensor: Tensor) -> Tensor:
        """Replace zeros, such as those of a last layer before any training, through which no gradient passes."""
        if not tensor.is_floating_point() or bool(tensor.any()):
            return tensor
        return torch.randn(tensor.shape, generator=generator).mul(0.1).to(tensor)

    weights = {name: grown(tensor) for name, tensor in network.state_dict().items()}
    with evaluating(network):
        scores, maps = run_to_layers(network, weights, images[:1], tokens)
    if not scores.requires_grad:  # they depend on no tokens, or not in a way that can be differentiated
        return None
    slopes = torch.autograd.grad(scores.max(), maps, allow_unused=True)
    # A single place is a class token that stands behind the patches.
    used = [
        name
        for name, slope in zip(tokens, slopes, strict=True)
        if slope is not None and int(slope.any(dim=1).sum()) > 1
    ]
    return used[-1] if used else None


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
