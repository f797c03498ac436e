"""Random draws of images from the data sets that FedML accepts, without an effect on the training's random state."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedml_gradcam_ae.networks.batches import image_tensor, joined, pair
from fedml_gradcam_ae.networks.labels import NONE, class_indices

log = logging.getLogger("fedml_gradcam_ae")

SHOWN = 10  # the most positions of broken images in a message


def seeded_generator(*entropy: int) -> torch.Generator:
    """Return a generator of its own for some numbers (a seed, a round, ...): the same numbers give the same draws.

    Args:
        entropy: whole numbers of at least 0.

    Example:
        >>> first, second = seeded_generator(0, 7), seeded_generator(0, 7)
        >>> torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))
        True
    """
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the random states of torch, numpy and random after a `with` block.

    To read a DataLoader draws from them.

    Example:
        >>> state = torch.get_rng_state()
        >>> with preserved_random_state():
        ...     _ = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), state)
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def draw_images(
    data: Iterable[Any] | None,
    count: int,
    generator: torch.Generator,
    *,
    classes: int | None = None,
    labeled: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return `count` images drawn at random, without replacement, and their labels; all images if there are fewer.

    Images with NaN or infinity are left out, and a line in the log gives their positions.

    Args:
        data: a DataLoader, or any iterable of batches that can be iterated again; see `batches` and `labels`.
        count: how many images, at least 1.
        generator: the only source of randomness.
        classes: the number of classes: larger labels count as no label. None: every label of at least 0 counts.
        labeled: if True, images without a label are left out as well.

    Returns:
        Images (count, channels, height, width), float32, and labels (count,), int64, -1 for an image without a label.

    Raises:
        ValueError: if there is no usable image, or if the data hold anything but images and labels.

    Example:
        >>> data = [(torch.rand(8, 1, 2, 2), torch.ones(8))]
        >>> images, labels = draw_images(data, count=3, generator=seeded_generator(0))
        >>> images.shape, labels
        (torch.Size([3, 1, 2, 2]), tensor([1, 1, 1]))
    """
    with preserved_random_state():
        total, read = _reader(data)
        if total == 0:
            raise ValueError("The data to draw images from are empty: at least one image is needed.")
        order = torch.randperm(total, generator=generator)
        found: list[tuple[Tensor, Tensor]] = []
        broken: list[int] = []
        drawn = start = 0
        size = count
        while start < total and drawn < count:
            positions = order[start : start + size]
            images, labels = read(positions)
            images = images.float()
            finite = images.isfinite().flatten(1).all(dim=1)
            if classes is not None:
                labels = labels.masked_fill(labels >= classes, NONE)
            usable = finite & (labels >= 0) if labeled else finite
            broken += positions[~finite].tolist()
            found.append((images[usable][: count - drawn], labels[usable][: count - drawn]))
            drawn += int(usable.sum())
            start, size = start + size, 2 * size
    if broken:
        shown = ", ".join(map(str, sorted(broken)[:SHOWN])) + (", ..." if len(broken) > SHOWN else "")
        log.warning("%d images are left out, since they hold NaN or infinity: positions %s.", len(broken), shown)
    if drawn == 0:
        wanted = "a whole number from 0" + (f" to {classes - 1}" if classes else "")
        reasons = [f"{len(broken)} hold NaN or infinity"] if broken else []
        reasons += [f"{total - len(broken)} have no label ({wanted})"] if len(broken) < total else []
        raise ValueError(f"None of the {total} images can be used: {', '.join(reasons)}.")
    return joined([images for images, _ in found]), torch.cat([labels for _, labels in found])


def _reader(data: Iterable[Any] | None) -> tuple[int, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Return the number of images, and a function from positions, (images,), to images and labels."""
    if (
        isinstance(data, DataLoader)
        and data.batch_sampler is not None  # else each item is a batch already
        and hasattr(data.dataset, "__len__")
        and hasattr(data.dataset, "__getitem__")
    ):
        dataset, collate = data.dataset, data.collate_fn or torch.utils.data.default_collate

        def read(positions: Tensor) -> tuple[Tensor, Tensor]:
            images, labels = pair(collate([dataset[int(position)] for position in positions]))
            return image_tensor(images), class_indices(labels)

        return len(dataset), read
    if isinstance(data, Iterator):
        raise ValueError(
            f"The data can be read only once ({type(data).__name__}), and every round draws from them: give a "
            "DataLoader, or a list of batches."
        )
    pairs = [pair(batch) for batch in data] if data is not None else []
    if not pairs:
        return 0, lambda _positions: (torch.zeros(0), torch.zeros(0))
    images = joined([image_tensor(images) for images, _ in pairs])
    labels = torch.cat([class_indices(labels) for _, labels in pairs])
    if len(images) != len(labels):
        raise ValueError(f"There must be a label for each image, found {len(images)} images and {len(labels)} labels.")
    return len(images), lambda positions: (images[positions], labels[positions])
