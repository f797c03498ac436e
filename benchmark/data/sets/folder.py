"""Pictures of the user's own, in one folder per class: the layout of torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmark.data.pixels import reader
from benchmark.data.place import root_of
from benchmark.data.registry import Source, Split, Wanted, register_data
from fedml_gradcam_ae.contract.settings import SettingsError

# ImageNet's values, the usual choice for photographs. Gray pictures become three equal channels.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# The expected files below `root`, for error messages.
LAYOUT = "train/CLASS/*.png and test/CLASS/*.png (or val/ for test/; jpg, ppm, bmp and others do as well)"


@register_data("folder", keys=("root",))
def folder(data: Wanted) -> Source:
    """Open the pictures in train/ and test/ (or val/) below `root`; classes are named by their folders.

    Args:
        data: the settings.

    Raises:
        SettingsError: if `root` is not set, or the folder has another layout.
    """
    if data.root is None:
        raise SettingsError(f"data.root is missing: folder needs the folder that holds {LAYOUT}.")
    return read_folder(root_of(data), data.size)


def read_folder(root: Path, size: int) -> Source:
    """Open a folder of pictures in the layout of torchvision's ImageFolder.

    Args:
        root: the folder that holds train/ and test/ (or val/).
        size: height and width in pixels that the pictures are scaled to.

    Returns:
        The data set, with ImageNet's mean and standard deviation.

    Raises:
        SettingsError: if the folder has another layout.
    """
    train, test = _found(root, "train"), _found(root, "test", "val")
    if train.classes != test.classes:
        differing = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise SettingsError(
            f"data: {train.root} and {test.root} must hold the same classes; only one of them has: {differing}."
        )
    return Source(_split(train, size), _split(test, size), train.classes, MEAN, STD)


def _split(found: Any, size: int) -> Split:
    return Split(torch.tensor(found.targets), reader(found, size, lambda position: str(found.samples[position][0])))


def _found(root: Path, *names: str) -> Any:
    from torchvision.datasets import ImageFolder

    for name in names:
        if (root / name).is_dir():
            try:
                return ImageFolder(root / name)
            except OSError as error:
                raise SettingsError(f"data: {str(error).rstrip('.')}. Expected in {root}: {LAYOUT}.") from None
    hint = " This is GTSRB's layout: data.name: gtsrb reads it." if (root / "gtsrb/GTSRB").is_dir() else ""
    raise SettingsError(f"data: {root / names[0]} does not exist. Expected in {root}: {LAYOUT}.{hint}")
