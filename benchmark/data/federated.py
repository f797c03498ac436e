"""The images of a run in the form that FedML expects."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmark.data.images import read
from benchmark.data.partition import Parts, partition
from benchmark.data.settings import Data
from benchmark.data.stratified import stratified
from fedml_gradcam_ae.contract.settings import SettingsError


class Clients(Protocol):
    """The settings of the clients that `load` needs."""

    @property
    def clients(self) -> int:
        """Return the number of clients."""

    @property
    def batch_size(self) -> int:
        """Return the number of images per batch."""


class Apart(Protocol):
    """The settings of a warm start that `load` needs."""

    @property
    def share(self) -> float:
        """Return the fraction of the training images that no client gets."""


class Run(Protocol):
    """The settings of a run that decide which images its clients get; `benchmark.config.Run` has all of them."""

    @property
    def data(self) -> Data:
        """Return the settings of the data set and the partition."""

    @property
    def federation(self) -> Clients:
        """Return the settings of the clients."""

    @property
    def warm_start(self) -> Apart | None:
        """Return the settings of the warm start; None without one."""

    @property
    def seed(self) -> int:
        """Return the seed of all random draws."""


def load(run: Run) -> list[Any]:
    """Load the images of a run as the list of eight that FedML expects.

    The test set is the same for every seed. The seed decides the partition of the training images and their order
    during training.

    Args:
        run: the settings.

    Returns:
        The number of training images, the number of test images, the loaders of all training images and of the test
        images, the number of training images by client, the loaders of training and test images by client, and the
        number of classes.

    Raises:
        SettingsError: if the data set is missing, or there are too few images.
    """
    images = read(run.data)
    parts = client_parts(run)
    size = run.federation.batch_size
    order = [position for part in parts for position in part]
    # One tensor, ordered by client, so that each client's images are a view of it and not a copy.
    train, labels = images.normalized(images.train[order]), images.train_labels[order]
    lengths = [len(part) for part in parts]
    by_client = zip(torch.split(train, lengths), torch.split(labels, lengths), strict=True)
    test_loader = loader(images.normalized(images.test), images.test_labels, size, shuffle=False)
    return [
        len(order),
        len(images.test),
        loader(train, labels, size, shuffle=False),
        test_loader,
        dict(enumerate(lengths)),
        {client: loader(*own, size, shuffle=True) for client, own in enumerate(by_client)},
        # FedML sums the accuracy over all clients' test sets and skips None: one client is enough.
        {client: test_loader if client == 0 else None for client in range(len(parts))},
        len(images.classes),
    ]


def loader(images: Tensor, labels: Tensor, size: int, shuffle: bool) -> DataLoader[Any]:
    """Return a loader of batches.

    While training, a last batch of a single image is dropped: BatchNorm cannot be trained on one image whose maps are 1
    x 1, as in ResNet-18 on 32 x 32 pixels.

    Args:
        images: (images, channels, height, width), float32, normalized.
        labels: (images,), int64.
        size: images per batch.
        shuffle: whether to draw a new order each epoch, as in training.
    """
    alone = shuffle and len(images) > size > 1 and len(images) % size == 1
    return DataLoader(TensorDataset(images, labels), batch_size=size, shuffle=shuffle, drop_last=alone)


def client_parts(run: Run) -> Parts:
    """Return the positions of each client's images among the training images.

    Args:
        run: the settings.

    Raises:
        SettingsError: if the data set is missing, or there are too few images.
    """
    labels = read(run.data).train_labels
    apart = set(kept_apart(run))
    left = torch.tensor([position for position in range(len(labels)) if position not in apart])
    if len(left) == 0:
        raise SettingsError(f"warm_start.share: {run.data.name} has no training image left for the clients.")
    parts = partition(labels[left], run.federation.clients, run.data, run.seed)
    return [left[part].tolist() for part in parts]


def kept_apart(run: Run) -> list[int]:
    """Return the positions of the training images that no client gets, reserved for the warm start.

    They are the same for every seed and stratified by class.

    Args:
        run: the settings.

    Returns:
        Positions, ascending; empty without a warm start.
    """
    if run.warm_start is None:
        return []
    labels = read(run.data).train_labels
    return stratified(labels, round(run.warm_start.share * len(labels)))


def class_counts(run: Run) -> Tensor:
    """Count the images of each class that each client has.

    Args:
        run: the settings.

    Returns:
        (clients, classes), int64.
    """
    images = read(run.data)
    parts = client_parts(run)
    return torch.stack([torch.bincount(images.train_labels[part], minlength=len(images.classes)) for part in parts])
