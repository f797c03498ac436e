"""Bringing heat maps to a common scale and size."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def min_max(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1] by its own minimum and maximum; a constant map becomes zero.

    Args:
        maps: (..., height, width).
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low) / span.masked_fill(span == 0, 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of the last two dimensions to (size, size); of the right size already, nothing happens.

    Args:
        images: (first, second, height, width), or (images, height, width) without channels.
        size: pixels.
    """
    if images.shape[-2:] == (size, size):
        return images
    if images.dim() == 3:
        return resize(images[:, None], size)[:, 0]
    return interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
