"""The scale and the size of heat maps."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def min_max(maps: Tensor) -> Tensor:
    """Return each map scaled to [0, 1] by its own minimum and maximum; a constant map becomes zero.

    Args:
        maps: (..., height, width).

    Example:
        >>> import torch
        >>> min_max(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        tensor([[0.0000, 0.2500],
                [0.5000, 1.0000]])
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low) / span.masked_fill(span == 0, 1)


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return images with the last two dimensions resized, bilinearly.

    Images that have this size already are returned as they are.

    Args:
        images: (first, second, height, width), or (images, height, width) without channels.
        size: (height, width) in pixels, or one number for both.

    Example:
        >>> import torch
        >>> resize(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), size=4)[0, 0].tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    size = (size, size) if isinstance(size, int) else size
    if images.shape[-2:] == size:
        return images
    if images.dim() == 3:
        return resize(images[:, None], size)[:, 0]
    return interpolate(images, size=size, mode="bilinear", align_corners=False)
