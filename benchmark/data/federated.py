"""A run's images in the form that FedML takes."""

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
    """How many clients there are, and how they train."""

    @property
    def clients(self) -> int:
        """Number of clients."""

    @property
    def batch_size(self) -> int:
        """Images in a batch."""


class Apart(Protocol):
    """Images that no client gets."""

    @property
    def share(self) -> float:
        """Fraction of the training images."""


class Run(Protocol):
    """What of a run decides which images its clients get; benchmark.config has the whole."""

    @property
    def data(self) -> Data:
        """Which images."""

    @property
    def federation(self) -> Clients:
        """The clients."""

    @property
    def warm_start(self) -> Apart | None:
        """The images kept for it, if there is one."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""


def load(run: Run) -> list[Any]:
    """FedML's list of eight: sizes, global loaders, and per client sizes and loaders.

    The test set is the same for every seed; the seed spreads the training images over the clients
    and shuffles them during training.
    """
    images = read(run.data)
    parts = client_parts(run)
    size = run.federation.batch_size
    order = [position for part in parts for position in part]
    # Client by client in one tensor: what each one holds is a view of it, not a copy.
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
        # FedML adds up the accuracy over all clients' test sets and skips None: one client stands for all.
        {client: test_loader if client == 0 else None for client in range(len(parts))},
        len(images.classes),
    ]


def loader(images: Tensor, labels: Tensor, size: int, shuffle: bool) -> DataLoader[Any]:
    """Batches; while training, a single image left over at the end of an epoch is not one.

    BatchNorm cannot be trained on one image whose maps are down to 1 x 1, as in ResNet-18 on 32 x 32 pixels.
    """
    alone = shuffle and len(images) > size > 1 and len(images) % size == 1
    return DataLoader(TensorDataset(images, labels), batch_size=size, shuffle=shuffle, drop_last=alone)


def client_parts(run: Run) -> Parts:
    """Each client's positions among the training images.

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
    """The training images that no client gets, for the warm start: the same for every seed, each class in its share."""
    if run.warm_start is None:
        return []
    labels = read(run.data).train_labels
    return stratified(labels, round(run.warm_start.share * len(labels)))


def class_counts(run: Run) -> Tensor:
    """How many images of each class each client has, (clients, classes)."""
    images = read(run.data)
    parts = client_parts(run)
    return torch.stack([torch.bincount(images.train_labels[part], minlength=len(images.classes)) for part in parts])
