"""Labels: the numbers of classes, in whatever form a data set holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NONE = -1  # the label of an image of no known class


def class_indices(labels: Any) -> Tensor:
    """Return the classes that labels stand for.

    Args:
        labels: whole numbers of any type, (images,) or (images, 1); or one-hot rows or probabilities, (images,
            classes). Negative numbers, NaN and a row of zeros mean that an image has no label.

    Returns:
        (images,), int64; -1 where there is no label.

    Raises:
        ValueError: for labels that stand for no class: fractions, several classes an image, other shapes.

    Examples:
        >>> class_indices([[0.0, 1.0], [1.0, 0.0]])
        tensor([1, 0])
        >>> class_indices([[2], [-100]])
        tensor([ 2, -1])
    """
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Labels must be numbers of classes, found {type(labels).__name__}: {error}") from None
    if found.dim() == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dim() == 2 and found.shape[1] > 1:
        rows = found.double().nan_to_num()
        if bool((rows.sum(dim=1) > 1.001).any()):
            raise ValueError(
                f"Labels of shape {tuple(found.shape)} must be one-hot or probabilities, found rows whose sum is above "
                "1: images of several classes at once have no heat map of their class."
            )
        return torch.where(rows.sum(dim=1) > 0, rows.argmax(dim=1), NONE)
    if found.dim() != 1:
        raise ValueError(
            f"Labels must have shape (images,), (images, 1) or (images, classes), found {tuple(found.shape)}."
        )
    if found.is_floating_point() or found.is_complex():
        missing = ~torch.isfinite(found)
        whole = found.real.masked_fill(missing, NONE)
        if bool((whole != whole.round()).any()):
            fraction = float(whole[whole != whole.round()][0])
            raise ValueError(f"Labels must be whole numbers, the classes from 0, found {fraction:g}.")
        found = whole
    return found.long().clamp(min=NONE)
