"""Pictures to tensors of bytes, all of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedml_gradcam_ae.contract.settings import SettingsError

UNREADABLE = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are cut short or no pictures


def reader(pictures: Any, size: int, name: Callable[[int], str]) -> Callable[[Sequence[int]], Tensor]:
    """From positions in a torchvision data set to (positions, 3, size, size), uint8.

    Args:
        pictures: pictures[i] is a pair of a Pillow image and a label.
        size: height and width; a picture of another size or shape is scaled (bilinear), not cropped.
        name: how the user knows picture i, for the message if it cannot be read.
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
