"""Label flipping: the attackers train honestly on wrong labels.

Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
section 5, which flips a label y of C classes to C - 1 - y.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.networks.batches import places
from fedml_gradcam_ae.networks.images import draw_images
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes


@register_attack("label_flip")
class LabelFlip(Attack):
    """Labels C - 1 - y in place of y in the attackers' training, which otherwise runs like that of other clients.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.label_flip import LabelFlip
        >>> attack = LabelFlip(LabelFlip.Settings(classes=10))
        >>> data = [(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 7]))]
        >>> for images, labels in attack.poison_data(torch.nn.Identity(), data):
        ...     print(labels)
        tensor([9, 8, 2])
    """

    class Settings(OutputSettings, AttackSettings):
        """The number of classes C, for networks whose output width is another one."""

        classes: int | None = Field(
            default=None, ge=2, description="C, the number of classes; null: the width of the network's output"
        )

    settings: Settings

    @override
    def poison_data(self, network: nn.Module, data: Iterable[Any]) -> FlippedLabels:
        """Return the batches that an attacker trains on: the given ones with flipped labels.

        Args:
            network: the architecture, whose output width is C unless `classes` is set.
            data: the attacker's own batches (images, labels).
        """
        classes = self.settings.classes or _output_width(Classifier(network, self.settings.logits), data)
        return FlippedLabels(data, classes)

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[Upload]:
        """Return the attackers' uploads unchanged, since the training on flipped labels poisoned them."""
        return [round.uploads[position] for position in attackers]


class FlippedLabels:
    """The batches of `data` with labels C - 1 - y; each pass iterates over `data` again and keeps its shuffling.

    Args:
        data: batches (images, labels).
        classes: C.
    """

    def __init__(self, data: Iterable[Any], classes: int) -> None:
        self.data, self.classes = data, classes

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            _, place = places(batch)
            changed = dict(batch) if isinstance(batch, Mapping) else list(batch)
            changed[place] = flipped(torch.as_tensor(batch[place]), self.classes)
            yield changed if isinstance(batch, (Mapping, list)) else tuple(changed)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # fails like `data` itself if that has no length


def flipped(labels: Tensor, classes: int) -> Tensor:
    """Return the labels C - 1 - y; values that are no label, such as -100, stay.

    Args:
        labels: (images,) or (images, 1), int64, or one-hot rows (images, classes).
        classes: C.

    Returns:
        The same shape as `labels`.

    Example:
        >>> flipped(torch.tensor([0, 1, 9, -100]), classes=10)
        tensor([   9,    8,    0, -100])
    """
    if labels.dim() == 2 and labels.shape[1] > 1:
        return labels.flip(1)
    return torch.where((labels >= 0) & (labels < classes), classes - 1 - labels, labels)


def _output_width(network: Classifier, data: Iterable[Any]) -> int:
    """Return the number of classes in the network's output for one of the images."""
    images, _ = draw_images(data, 1, torch.Generator().manual_seed(0), labeled=False)
    return count_classes(network, images.to(next(network.parameters()).device))
