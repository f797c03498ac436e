"""The axes of a module's output: which of them are places of the image, and which are the channels.

Convolutions return (images, channels, height, width); one of signals has one axis of places, one of volumes three. Swin
transformers and the inside of ConvNeXt's blocks have the channels last, and a vision transformer returns tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fedml_gradcam_ae.heatmaps.tokens import token_grid


class Layout(NamedTuple):
    """The axes of an output that shows places of the image.

    Attributes:
        size: the number of positions along each axis of the image: (height, width), or rows and columns of patches.
        channels_last: whether the channels are the last axis instead of the second.
        extra: the number of tokens in front of the patches.
    """

    size: tuple[int, ...]
    channels_last: bool = False
    extra: int = 0

    def to_maps(self, output: Tensor) -> Tensor:
        """Return an output as feature maps, (images, channels, height, width).

        The positions of a signal are one row; the slices of a volume are below each other.

        Args:
            output: of this layout.

        Example:
            >>> tokens = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [4.0]]])
            >>> Layout((2, 2), channels_last=True, extra=1).to_maps(tokens)
            tensor([[[[1., 2.],
                      [3., 4.]]]])
        """
        first = output[:, self.extra :].movedim(-1, 1) if self.channels_last else output
        return first.reshape(len(output), first.shape[1], math.prod(self.size[:-1]), self.size[-1])

    def restored(self, output: Tensor, maps: Tensor) -> Tensor:
        """Return a copy of an output that is made of its feature maps, the inverse of `to_maps`.

        Args:
            output: of this layout; only tokens that are no patches are read.
            maps: (images, channels, height, width).
        """
        if not self.channels_last:
            return maps.clone().reshape(output.shape)
        places = maps.flatten(2).transpose(1, 2)
        return torch.cat([output.flatten(1, -2)[:, : self.extra], places], dim=1).reshape(output.shape)


def dimensions(network: nn.Module) -> int:
    """Return how many axes the network's images have: 1 for signals, 2, or 3 for volumes.

    Args:
        network: the architecture; without a convolution its images count as having 2.

    Example:
        >>> dimensions(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())), dimensions(nn.Linear(1, 1))
        (1, 2)
    """
    return max((len(layer.kernel_size) for layer in network.modules() if isinstance(layer, _ConvNd)), default=2)


def resizable(network: nn.Module, images: Tensor) -> bool:
    """Return whether images can be resized: signals, volumes and rows of numbers cannot.

    Args:
        network: the architecture.
        images: of the test data.
    """
    return dimensions(network) == 2 and images.dim() > 2


def shortest_side(network: nn.Module, maps: Tensor) -> int:
    """Return the fewest positions of maps along an axis; those of a signal are one row.

    Args:
        network: the architecture.
        maps: (..., height, width).
    """
    return min(maps.shape[-2:]) if dimensions(network) == 2 else maps.shape[-1]


def layout_of(module: nn.Module, output: Any, images: Tensor, axes: int) -> Layout | None:
    """Return the layout of a module's output; None if it shows no places.

    Of layers that are not known, the proportions tell where the channels are: maps are as wide as the images are.

    Args:
        module: the module.
        output: its output for `images`.
        images: (images, channels, height, width), or without channels, or as rows of numbers.
        axes: see `dimensions`.

    Example:
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> layout_of(nn.Conv2d(3, 6, 1), torch.zeros(1, 6, 4, 4), images, axes=2)
        Layout(size=(4, 4), channels_last=False, extra=0)
        >>> layout_of(nn.ReLU(), torch.zeros(1, 4, 4, 6), images, axes=2)
        Layout(size=(4, 4), channels_last=True, extra=0)
        >>> layout_of(nn.ReLU(), torch.zeros(1, 17, 6), images, axes=2)
        Layout(size=(4, 4), channels_last=True, extra=1)
    """
    if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
        return None
    if len(output) != len(images):
        return None
    if output.dim() == axes + 2:
        first, last = Layout(tuple(output.shape[2:])), Layout(tuple(output.shape[1:-1]), channels_last=True)
        if isinstance(module, _ConvNd | _NormBase | nn.GroupNorm):
            return first
        if keeps_last_axis(module):
            return last
        sides = images.shape[-axes:] if images.dim() > axes else (1,) * axes  # rows of numbers: taken for squares
        far_first, far_last = _distortion(first.size, sides), _distortion(last.size, sides)
        return last if far_last < far_first or (far_last == far_first and _linear_only(module)) else first
    if output.dim() == 3 and axes == 2 and images.dim() > 2:
        grid = token_grid(output.shape[1], *images.shape[-2:])
        return None if grid is None else Layout((grid.height, grid.width), True, grid.extra)
    return None


def keeps_last_axis(module: nn.Module) -> bool:
    """Return whether a layer works on the last axis only, so that the channels are there.

    Args:
        module: the layer.
    """
    return type(module) is nn.Linear or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1)


def _linear_only(module: nn.Module) -> bool:
    """Return whether a module has layers of the last axis and no convolution, such as a stage of a Swin transformer."""
    layers = list(module.modules())
    return any(map(keeps_last_axis, layers)) and not any(isinstance(layer, _ConvNd) for layer in layers)


def _distortion(size: Sequence[int], sides: Sequence[int]) -> float:
    """Return how far the proportions of maps are from those of the image, as a logarithm; 0 where they are equal."""
    scales = [math.log(positions / side) for positions, side in zip(size, sides, strict=True)]
    return round(max(scales) - min(scales), 9)
