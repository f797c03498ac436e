"""The data sets of the suite, in the form that FedML takes."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, TensorDataset

from benchmark.config import Run

DIGITS_PIXELS = 32
TEST_SHARE = 0.2


def load(run: Run) -> list[Any]:
    """FedML's list of eight: sizes, global loaders, and per client sizes and loaders.

    The test set is the same for every seed; the seed spreads the training images over the clients
    and shuffles them during training.
    """
    images, labels = digits()
    train, test = train_test_split(range(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)
    generator = torch.Generator().manual_seed(run.seed)
    parts = iid(len(train), run.federation.clients, generator)
    size = run.federation.batch_size

    def loader(positions: list[int], shuffle: bool) -> DataLoader[Any]:
        data = TensorDataset(images[positions], labels[positions])
        return DataLoader(data, batch_size=size, shuffle=shuffle)

    by_client = {client: [train[i] for i in part] for client, part in enumerate(parts)}
    test_loader = loader(test, shuffle=False)
    return [
        len(train),
        len(test),
        loader(train, shuffle=False),
        test_loader,
        {client: len(positions) for client, positions in by_client.items()},
        {client: loader(positions, shuffle=True) for client, positions in by_client.items()},
        # FedML adds up the accuracy over all clients' test sets and skips None: one client stands for all.
        {client: test_loader if client == 0 else None for client in by_client},
        10,
    ]


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's 1,797 handwritten digits, (1797, 1, 32, 32) in [0, 1], and their labels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    large = interpolate(images, size=(DIGITS_PIXELS, DIGITS_PIXELS), mode="bilinear", align_corners=False)
    return large, torch.tensor(bunch.target)


def iid(samples: int, clients: int, generator: torch.Generator) -> list[list[int]]:
    """Shuffle and deal out: parts that differ by at most one sample."""
    order = torch.randperm(samples, generator=generator)
    return [part.tolist() for part in order.tensor_split(clients)]
