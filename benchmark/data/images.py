"""The images of a data set in memory; those of the last two data sets are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from benchmark.data.registry import Split, data_sets
from benchmark.data.settings import Data
from benchmark.data.stratified import stratified
from fedml_gradcam_ae.contract.settings import SettingsError


@dataclass(frozen=True)
class Images:
    """The training and test images of a data set, not yet normalized.

    Attributes:
        train: (images, channels, size, size), uint8 or float32 in [0, 1].
        train_labels: (images,), int64.
        test: as `train`.
        test_labels: as `train_labels`.
        classes: the name of each class.
        mean: of each channel, for images in [0, 1].
        std: standard deviation of each channel, for images in [0, 1].
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]

    def normalized(self, images: Tensor) -> Tensor:
        """Return images scaled to [0, 1], minus `mean`, divided by `std`, by channel.

        Args:
            images: (images, channels, size, size), uint8 or float32 in [0, 1].

        Returns:
            A new tensor of the same shape, float32.
        """
        # CIFAR-10 takes 0.6 GB as floats, so that only one new tensor is made and changed in place.
        scaled = images.float().div_(255) if images.dtype == torch.uint8 else images.clone()
        return scaled.sub_(torch.tensor(self.mean)[:, None, None]).div_(torch.tensor(self.std)[:, None, None])

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of all pixels and labels, which identifies the images wherever they are stored."""
        digest = hashlib.sha256()
        for tensor in (self.train, self.train_labels, self.test, self.test_labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]


def read(data: Data) -> Images:
    """Read the images that the settings name; the partition has no influence.

    The last two data sets that were read stay in memory.

    Args:
        data: the settings.

    Raises:
        SettingsError: if the data set is missing, incomplete, or smaller than the settings require.
    """
    return _read(data.images)


@lru_cache(maxsize=2)
def _read(data: Data) -> Images:
    source = data_sets()[data.name].open(data)
    train = _chosen(source.train, data.train_images, f"data.train_images of {data.name}")
    test = _chosen(source.test, data.test_images, f"data.test_images of {data.name}")
    return Images(
        train=source.train.read(train),
        train_labels=source.train.labels[train],
        test=source.test.read(test),
        test_labels=source.test.labels[test],
        classes=source.classes,
        mean=source.mean,
        std=source.std,
    )


def _chosen(split: Split, count: int | None, key: str) -> list[int]:
    there = len(split.labels)
    if count is None:
        return list(range(there))
    if count > there:
        raise SettingsError(f"{key}: expected at most {there}, the images that there are, found {count}.")
    return stratified(split.labels, count)
