"""CIFAR-10 (Krizhevsky, 2009): 50,000 training and 10,000 test images of 32 x 32 pixels, ten classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmark.data.pixels import reader
from benchmark.data.place import root_of
from benchmark.data.registry import Source, Split, Wanted, register_data
from benchmark.data.sets.folder import read_folder
from fedml_gradcam_ae.contract.settings import SettingsError

# Of the training images in [0, 1], by channel.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
PICTURES = "cifar10"  # a folder of train/CLASS/*.png and test/CLASS/*.png, as on some mirrors; JPEG files differ


@register_data("cifar10", keys=("root", "download"))
def cifar10(data: Wanted) -> Source:
    """Open CIFAR-10 as torchvision stores it, or as a folder of pictures.

    Args:
        data: the settings; `root` is the folder that holds cifar-10-batches-py/, or cifar10/ with pictures.

    Raises:
        SettingsError: if it is missing, incomplete, or cannot be downloaded.
    """
    root = root_of(data)
    if (root / PICTURES / "train").is_dir() and not (root / "cifar-10-batches-py").is_dir():
        return replace(read_folder(root / PICTURES, data.size), mean=MEAN, std=STD)
    train, test = _split(root, True, data), _split(root, False, data)
    return Source(train[0], test[0], train[1], MEAN, STD)


def _split(root: Path, train: bool, data: Wanted) -> tuple[Split, list[str]]:
    from torchvision.datasets import CIFAR10

    try:
        found = CIFAR10(root, train=train, download=data.download)
    except (RuntimeError, OSError) as error:
        raise SettingsError(_missing(root, data.download, error)) from None
    pictures = reader(found, data.size, lambda position: f"image {position} of {found.filename}")
    return Split(torch.tensor(found.targets), pictures), list(found.classes)


def _missing(root: Path, download: bool, error: Exception) -> str:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = root / CIFAR10.base_folder
    if download:
        return (
            f"data: cifar10 could not be downloaded from {CIFAR10.url} to {root}: {error}. On a machine without "
            f"internet, fetch that file elsewhere and unpack it there, so that {folder}/data_batch_1 exists."
        )
    if folder.is_dir():
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
        broken = [name for name, checksum in files if not check_integrity(str(folder / name), checksum)]
        return (
            f"data: cifar10 in {folder} is incomplete or damaged; not the files that torchvision expects: "
            f"{', '.join(broken)}. Delete the folder and unpack {CIFAR10.url} again, or set data.download: true."
        )
    return (
        f"data: cifar10 is not there: {folder} does not exist. Either set data.download: true (torchvision fetches "
        f"{CIFAR10.url}, 170 MB, into {root}), or unpack that file there by hand, or set data.root to the folder that "
        f"holds {CIFAR10.base_folder}/, or {PICTURES}/ with train/CLASS/*.png and test/CLASS/*.png."
    )
