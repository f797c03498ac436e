"""Batches of training data of which an attack changes some samples, and new labels in the form of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.networks.batches import image_tensor, places

# From the images and labels of a batch and the number of samples to poison, to those that are trained on.
Change = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class PoisonedBatches:
    """The batches of `data` after a change; each pass iterates over `data` again and keeps its shuffling.

    The change is asked to poison the first samples of each batch, as many as keep the whole pass at the share. A
    shuffling loader puts other samples first in each pass.

    Args:
        data: batches (images, labels).
        change: returns the images and labels to train on. What it returns unchanged stays as the batch has it.
        share: the share of the samples to poison, from 0 to 1.
        during: returns a context manager that is entered for each pass.

    Example:
        >>> data = [(torch.zeros(3, 1, 2, 2), torch.tensor([4, 5, 6]))] * 2
        >>> to_zero = lambda images, labels, count: (images, relabeled(labels, torch.arange(len(labels)) < count, 0))
        >>> [labels.tolist() for _, labels in PoisonedBatches(data, to_zero, share=0.5)]
        [[0, 5, 6], [0, 0, 6]]
    """

    def __init__(
        self,
        data: Iterable[Any],
        change: Change,
        share: float = 1.0,
        during: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.data, self.change, self.share, self.during = data, change, share, during

    def __iter__(self) -> Iterator[Any]:
        seen = poisoned = 0
        with self.during():
            for batch in self.data:
                at_images, at_labels = places(batch)
                images, labels = image_tensor(batch[at_images]), torch.as_tensor(batch[at_labels])
                seen += len(labels)
                count = int(self.share * seen + 1e-9) - poisoned  # 1e-9: 0.7 * 10 is just below 7
                poisoned += count
                found = self.change(images, labels, count)
                changed = dict(batch) if isinstance(batch, Mapping) else list(batch)
                for place, before, after in zip((at_images, at_labels), (images, labels), found, strict=True):
                    if after is not before:
                        changed[place] = after
                yield changed if isinstance(batch, (Mapping, list)) else tuple(changed)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # fails like `data` itself if that has no length


def relabeled(labels: Tensor, chosen: Tensor, target: int) -> Tensor:
    """Return the labels with those of some images set to one class.

    Args:
        labels: (images,) or (images, 1), or one-hot rows (images, classes).
        chosen: (images,), True for the images with the new label.
        target: the class.

    Returns:
        The same shape and type as `labels`.

    Example:
        >>> relabeled(torch.tensor([3, 4]), torch.tensor([True, False]), target=7)
        tensor([7, 4])
        >>> relabeled(torch.eye(3)[:2], torch.tensor([True, False]), target=2)
        tensor([[0., 0., 1.],
                [0., 1., 0.]])
    """
    changed = labels.clone()
    if labels.dim() == 2 and labels.shape[1] > 1:
        changed[chosen] = torch.eye(labels.shape[1], dtype=labels.dtype, device=labels.device)[target]
    else:
        changed[chosen] = target
    return changed
