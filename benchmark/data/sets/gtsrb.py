"""GTSRB (Stallkamp et al., 2012): German traffic signs, 43 classes, photographs of 15 to 250 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmark.data.pixels import reader
from benchmark.data.place import root_of
from benchmark.data.registry import Source, Split, Wanted, register_data
from fedml_gradcam_ae.contract.settings import SettingsError

# Of the training images in [0, 1], by channel.
MEAN = (0.3403, 0.3121, 0.3214)
STD = (0.2724, 0.2608, 0.2669)
URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"  # torchvision's source
# The files at `URL`, and the expected files below `root`, for error messages.
ARCHIVES = "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip"
LAYOUT = "gtsrb/GTSRB/Training/00000/*.ppm ..., gtsrb/GTSRB/Final_Test/Images/*.ppm and gtsrb/GT-final_test.csv"


@register_data("gtsrb", keys=("root", "download"))
def gtsrb(data: Wanted) -> Source:
    """Open GTSRB as torchvision stores it: whole pictures, scaled to a square.

    Args:
        data: the settings; `root` is the folder that holds gtsrb/.

    Raises:
        SettingsError: if it is missing, incomplete, or cannot be downloaded.
    """
    root = root_of(data)
    train, test = (_found(root, split, data.download) for split in ("train", "test"))
    # torchvision numbers the training folders in their order, but reads test labels from the CSV file. The two agree
    # only if no folder is missing.
    folders = sorted(path.name for path in (root / "gtsrb/GTSRB/Training").iterdir() if path.is_dir())
    if folders != [f"{label:05d}" for label in range(len(folders))]:
        raise SettingsError(
            f"data: the training folders of gtsrb must be 00000, 00001, ... without a gap, found {', '.join(folders)} "
            f"in {root / 'gtsrb/GTSRB/Training'}: unpack the training images again."
        )
    tests = [label for _path, label in test._samples]
    if not tests or max(tests) >= len(folders):
        raise SettingsError(
            f"data: {root / 'gtsrb/GT-final_test.csv'} must list test images of the classes 0 to {len(folders) - 1} "
            f"(those with training images), found {sorted(set(tests))}."
        )
    return Source(
        _split(train, data.size), _split(test, data.size), [str(label) for label in range(len(folders))], MEAN, STD
    )


def _split(found: Any, size: int) -> Split:
    paths, labels = zip(*found._samples, strict=True)
    return Split(torch.tensor(labels), reader(found, size, lambda position: str(paths[position])))


def _found(root: Path, split: str, download: bool) -> Any:
    from torchvision.datasets import GTSRB

    try:
        return GTSRB(root, split=split, download=download)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        problem = f"column {error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
    if download and not (root / "gtsrb/GTSRB" / ("Training" if split == "train" else "Final_Test/Images")).is_dir():
        raise SettingsError(
            f"data: gtsrb could not be downloaded from {URL} to {root}: {problem}. On a machine without internet, "
            f"fetch {ARCHIVES} elsewhere and unpack them into {root / 'gtsrb'}: {LAYOUT}."
        )
    if not (root / "gtsrb").is_dir():
        parent = " (this folder has GTSRB/ in it: its parent may be the root)" if (root / "GTSRB").is_dir() else ""
        raise SettingsError(
            f"data: gtsrb is not there: {root / 'gtsrb'} does not exist{parent}. Either set data.download: true "
            f"(torchvision fetches {ARCHIVES}, 270 MB, from {URL} into {root}), or unpack these files by hand, or set "
            f"data.root to the folder that holds gtsrb/: {LAYOUT}."
        )
    raise SettingsError(
        f"data: the {split} images of gtsrb in {root / 'gtsrb'} are incomplete or laid out in another way: {problem}. "
        f"Expected in {root}: {LAYOUT}."
    )
