"""Batches of a data set: images, and the labels that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# The keys under which a batch that is a mapping may hold its images and its labels; the first that is there counts.
IMAGES = ("images", "image", "pixel_values", "inputs", "input", "data", "img", "x")
LABELS = ("labels", "label", "targets", "target", "y")


def places(batch: Any) -> tuple[Any, Any]:
    """Return the keys or positions of the images and of the labels in a batch.

    Args:
        batch: a sequence of images, labels and perhaps more, or a mapping with one of `IMAGES` and one of `LABELS`.

    Raises:
        ValueError: if the batch is neither, naming what was found.

    Example:
        >>> places(("images", "labels")), places({"x": "images", "y": "labels"})
        ((0, 1), ('x', 'y'))
    """
    if isinstance(batch, Mapping):
        images, labels = (next((name for name in names if name in batch), None) for names in (IMAGES, LABELS))
        if images is None or labels is None:
            raise ValueError(
                f"A batch must hold images ({', '.join(IMAGES)}) and labels ({', '.join(LABELS)}), found a "
                f"{type(batch).__name__} with {', '.join(map(repr, batch)) or 'nothing'}."
            )
        return images, labels
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(f"A batch must be a pair (images, labels), found {type(batch).__name__}{size}.")
    return 0, 1


def pair(batch: Any) -> tuple[Any, Any]:
    """Return the images and the labels of a batch, as they are.

    Args:
        batch: see `places`.

    Raises:
        ValueError: as `places`.
    """
    images, labels = places(batch)
    return batch[images], batch[labels]


def image_tensor(images: Any) -> Tensor:
    """Return the images of a batch as one tensor, (images, ...).

    Args:
        images: a tensor, an array, or a list or tuple of tensors of one shape.

    Raises:
        ValueError: if they are none of these.
    """
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, Tensor) for image in images):
        return joined(list(images), torch.stack)
    try:
        return torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Images must be a tensor or an array, found {type(images).__name__}: {error}") from None


def joined(images: list[Tensor], how: Any = torch.cat) -> Tensor:
    """Return images of several batches as one tensor.

    Args:
        images: tensors.
        how: `torch.cat` for batches of images, `torch.stack` for single images.

    Raises:
        ValueError: if the images differ in size.
    """
    start = 1 if how is torch.cat else 0
    sizes = sorted({tuple(one.shape[start:]) for one in images})
    if len(sizes) > 1:
        raise ValueError(f"All images must have one shape, found {', '.join(map(str, sizes))}: resize them.")
    whole: Tensor = how(images)
    return whole
