"""Triggers of backdoors as functions of images: a patch, its quarters, and a pattern over the whole image.

Sources: the patch, Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017;
the blended pattern, Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017,
section 4; the parts of a trigger, Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR
2020. Pixels may be normalized, so a bright or a dark pixel is the largest or the smallest value of its channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Position = Literal["bottom_right", "bottom_left", "top_right", "top_left", "center"]


class Box(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top: its first row.
        left: its first column.
        height: its number of rows.
        width: its number of columns.
    """

    top: int
    left: int
    height: int
    width: int


class PixelRange(NamedTuple):
    """The smallest and the largest pixel of each channel.

    Attributes:
        low: (channels,).
        high: (channels,).
    """

    low: Tensor
    high: Tensor


def pixel_range(images: Tensor, low: float | None = None, high: float | None = None) -> PixelRange:
    """Return the smallest and the largest pixel of each channel.

    Args:
        images: (images, channels, height, width), at least one.
        low: taken in place of the smallest pixel found; None: the one found.
        high: taken in place of the largest pixel found; None: the one found.

    Example:
        >>> pixel_range(torch.tensor([[[[0.0, 0.5]], [[-1.0, 2.0]]]]), low=-3.0)
        PixelRange(low=tensor([-3., -3.]), high=tensor([0.5000, 2.0000]))
    """
    by_channel = images.transpose(0, 1).flatten(1)
    found = by_channel.amin(dim=1), by_channel.amax(dim=1)
    return PixelRange(
        *(end if given is None else torch.full_like(end, given) for end, given in zip(found, (low, high), strict=True))
    )


def square(height: int, width: int, size: int, position: Position) -> Box:
    """Return the square of `size` x `size` pixels in a corner or in the middle of an image.

    Args:
        height: the image's.
        width: the image's.
        size: at most the image's height and width.
        position: where the square is.

    Example:
        >>> square(8, 8, 3, "bottom_right"), square(8, 8, 2, "center")
        (Box(top=5, left=5, height=3, width=3), Box(top=3, left=3, height=2, width=2))
    """
    if position == "center":
        return Box((height - size) // 2, (width - size) // 2, size, size)
    top = height - size if position.startswith("bottom") else 0
    left = width - size if position.endswith("right") else 0
    return Box(top, left, size, size)


def quarters(box: Box) -> list[Box]:
    """Return the four parts of a rectangle; those of odd sides differ by one pixel.

    Args:
        box: at least two pixels high and wide.

    Example:
        >>> for part in quarters(Box(top=5, left=5, height=3, width=2)):
        ...     print(tuple(part))
        (5, 5, 2, 1)
        (5, 6, 2, 1)
        (7, 5, 1, 1)
        (7, 6, 1, 1)
    """
    upper, first = (box.height + 1) // 2, (box.width + 1) // 2
    rows = [(box.top, upper), (box.top + upper, box.height - upper)]
    columns = [(box.left, first), (box.left + first, box.width - first)]
    return [Box(top, left, height, width) for top, height in rows for left, width in columns]


def stamped(images: Tensor, boxes: Iterable[Box], value: Tensor) -> Tensor:
    """Return copies of the images with some rectangles of one color.

    Args:
        images: (images, channels, height, width).
        boxes: the rectangles.
        value: (channels,), the color.

    Example:
        >>> stamped(torch.zeros(1, 1, 2, 2), [Box(1, 1, 1, 1)], torch.tensor([0.5]))
        tensor([[[[0.0000, 0.0000],
                  [0.0000, 0.5000]]]])
    """
    copies = images.clone()
    for top, left, height, width in boxes:
        copies[:, :, top : top + height, left : left + width] = value.to(images)[:, None, None]
    return copies


def random_pattern(height: int, width: int, pixels: PixelRange, generator: torch.Generator) -> Tensor:
    """Return a picture of random pixels, each uniform in its channel's range.

    Args:
        height: of the picture.
        width: of the picture.
        pixels: the range of each channel.
        generator: draws the pixels.

    Returns:
        (channels, height, width), float32.
    """
    low, high = (end.float().cpu()[:, None, None] for end in pixels)
    return low + (high - low) * torch.rand((len(low), height, width), generator=generator)


def blended(images: Tensor, pattern: Tensor, alpha: float) -> Tensor:
    """Return the images mixed with a pattern: (1 - alpha) x + alpha p.

    Args:
        images: (images, channels, height, width).
        pattern: (channels, height, width), p.
        alpha: the share of the pattern, from 0 to 1.

    Example:
        >>> blended(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[1.0, 1.0]]]), alpha=0.25)
        tensor([[[[0.2500, 1.0000]]]])
    """
    return (1 - alpha) * images + alpha * pattern.to(images)
