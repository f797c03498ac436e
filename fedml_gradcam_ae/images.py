"""Drawing images from whatever FedML calls a data set, without touching the training's random state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader


def seeded_generator(*entropy: int) -> torch.Generator:
    """A private generator for these numbers (a seed, a round, ...): the same numbers, the same draws."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Give torch, numpy and random their states back: reading a DataLoader draws from them."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def draw_images(data: Iterable[Any] | None, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` images at random, without replacement; all of them if there are fewer.

    Args:
        data: a DataLoader, or any iterable of batches (images, labels) that can be iterated again.
        count: how many, at least 1.
        generator: the only source of randomness.

    Returns:
        images (count, channels, height, width) and labels (count,), int64.

    Raises:
        ValueError: if there is no image at all, or a batch is not a pair of images and labels.
    """
    with preserved_random_state():
        if isinstance(data, DataLoader) and hasattr(data.dataset, "__len__") and hasattr(data.dataset, "__getitem__"):
            positions = torch.randperm(_at_least_one(len(data.dataset)), generator=generator)[:count]
            collate = data.collate_fn or torch.utils.data.default_collate
            batches = [collate([data.dataset[int(position)] for position in positions])]
            chosen = torch.arange(len(positions))
        else:
            batches = list(data) if data is not None else []
            total = sum(len(_pair(batch)[1]) for batch in batches)
            chosen = torch.randperm(_at_least_one(total), generator=generator)[:count]
    pairs = [_pair(batch) for batch in batches]
    images = torch.cat([torch.as_tensor(images) for images, _ in pairs])
    labels = torch.cat([torch.as_tensor(labels) for _, labels in pairs])
    return images[chosen].float(), labels[chosen].long()


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError(f"A batch must be a pair (images, labels), found {type(batch).__name__}.")
    return batch[0], batch[1]


def _at_least_one(total: int) -> int:
    if total == 0:
        raise ValueError("The data to draw images from are empty: at least one image is needed.")
    return total
