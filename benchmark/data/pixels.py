"""Conversion of pictures to uint8 tensors of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedml_gradcam_ae.contract.settings import SettingsError

UNREADABLE = (OSError, ValueError, SyntaxError)  # what Pillow raises for truncated files and non-pictures


def reader(pictures: Any, size: int, name: Callable[[int], str]) -> Callable[[Sequence[int]], Tensor]:
    """Return a function that reads pictures of a torchvision data set at given positions.

    Args:
        pictures: pictures[i] is a pair of a Pillow image and a label.
        size: height and width in pixels; pictures of another size or shape are scaled (bilinear), not cropped.
        name: from i to a description of picture i, for the message if it cannot be read.

    Returns:
        A function from positions to pixels, (positions, 3, size, size), uint8. It raises SettingsError for a picture
        that cannot be read.
    """

    def read(positions: Sequence[int]) -> Tensor:
        pixels = np.empty((len(positions), size, size, 3), dtype=np.uint8)
        for row, position in enumerate(positions):
            try:
                picture, _label = pictures[position]
                picture = picture.convert("RGB")
            except UNREADABLE as error:
                raise SettingsError(f"data: {name(position)} cannot be read as a picture: {error}.") from None
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(picture)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    return read
