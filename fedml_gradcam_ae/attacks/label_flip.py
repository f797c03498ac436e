"""Label flipping: the attackers train honestly on wrong labels.

Sources: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
section 5, which flips a label y of C classes to C - 1 - y; and Tolpegin et al., "Data Poisoning Attacks Against
Federated Learning Systems", ESORICS 2020, section 3, which flips one class to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.data_poisoning import DataPoisoning, PoisoningSettings, check_class
from fedml_gradcam_ae.attacks.shared.poisoned_batches import PoisonedBatches, relabeled
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.networks.images import draw_images
from fedml_gradcam_ae.networks.labels import class_indices
from fedml_gradcam_ae.networks.outputs import Classifier, count_classes


@register_attack("label_flip")
class LabelFlip(DataPoisoning):
    """Labels C - 1 - y in place of y in the attackers' training, which otherwise runs like that of other clients.

    With `source`, only that class's labels are flipped; with `target`, they become that class.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae.attacks.label_flip import LabelFlip
        >>> data = [(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 7]))]
        >>> for settings in (LabelFlip.Settings(classes=10), LabelFlip.Settings(classes=10, source=7, target=1)):
        ...     for images, labels in LabelFlip(settings).poison_data(torch.nn.Identity(), data):
        ...         print(labels)
        tensor([9, 8, 2])
        tensor([0, 1, 1])
    """

    class Settings(PoisoningSettings):
        """Which labels are flipped to which, and the number of classes for networks whose output has another width."""

        source: int | None = Field(default=None, ge=0, description="the class whose labels are flipped; null: all")
        target: int | None = Field(
            default=None, ge=0, description="the class that they become; null: C - 1 - y in place of each label y"
        )
        classes: int | None = Field(
            default=None, ge=2, description="C, the number of classes; null: the width of the network's output"
        )

        @model_validator(mode="after")
        def _check_classes(self) -> LabelFlip.Settings:
            if self.source is not None and self.source == self.target:
                raise ValueError(f"source and target must be two classes, found {self.source} for both")
            return self

    settings: Settings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._classes = self.settings.classes

    @override
    def prepare(self, network: nn.Module, test_data: Iterable[Any]) -> None:
        """Check that the classes of the settings exist.

        Args:
            network: the architecture.
            test_data: the server's batches (images, labels).

        Raises:
            SettingsError: if there is no such class, if `classes` is more than the width of the network's output, or if
                the source is the middle one of an odd number of classes, so that C - 1 - y is y itself.
            ValueError: if the network cannot run on the test images.
        """
        source, target, stated = self.settings.source, self.settings.target, self.settings.classes
        if source is None and target is None:
            return
        self._classes = self._count(network, test_data)
        if stated is not None and stated > self._classes:
            raise SettingsError(
                f"attack_params.classes: {stated}, but the network's output has {self._classes} classes: leave it out."
            )
        self._classes = stated or self._classes
        check_class("source", source, self._classes)
        check_class("target", target, self._classes)
        if source is not None and target is None and 2 * source == self._classes - 1:
            raise SettingsError(
                f"attack_params.source: {source} is the middle one of {self._classes} classes, so that C - 1 - y is "
                f"{source} again: name a target."
            )

    @override
    def poison_data(
        self, network: nn.Module, data: Iterable[Any], attacker: int = 0, attackers: int = 1
    ) -> PoisonedBatches:
        """Return the batches that an attacker trains on: the given ones with flipped labels.

        Args:
            network: the model that it trains, whose output width is C unless `classes` is set.
            data: the attacker's own batches (images, labels).
            attacker: the attacker's number among all attackers, from 0.
            attackers: the number of all attackers.
        """
        source, target = self.settings.source, self.settings.target
        classes = self.settings.classes or self._count(network, data)

        def change(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
            return images, flipped(labels, classes, source, target)

        return self.training_batches(network, data, change)

    @override
    def triggered(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the images of the source class, or of all other classes, and the class that their labels become.

        Args:
            images: (images, channels, height, width).
            labels: (images,), their classes, -1 for none.

        Returns:
            Images and classes; None if every label y becomes C - 1 - y, since then there is no target.
        """
        source, target = self.settings.source, self.settings.target
        if self._classes is None or (source is None and target is None):
            return None
        wanted = flipped(labels, self._classes, source, target)
        chosen = (wanted != labels) & (labels >= 0)
        return images[chosen], wanted[chosen]

    def _count(self, network: nn.Module, data: Iterable[Any]) -> int:
        """Return the number of classes in the network's output for one of the images."""
        images, _ = draw_images(data, 1, torch.Generator().manual_seed(0), labeled=False)
        return count_classes(Classifier(network, self.settings.logits), images.to(next(network.parameters())))


def flipped(labels: Tensor, classes: int, source: int | None = None, target: int | None = None) -> Tensor:
    """Return the labels C - 1 - y, or those of one class, or as one class; labels that are none, such as -100, stay.

    Args:
        labels: (images,) or (images, 1), int64, or one-hot rows (images, width).
        classes: C; of one-hot rows that are narrower, their width.
        source: the class whose labels change; None: all.
        target: the class that they become; None: C - 1 - y.

    Returns:
        The same shape as `labels`.

    Example:
        >>> flipped(torch.tensor([0, 1, 9, -100]), classes=10)
        tensor([   9,    8,    0, -100])
        >>> flipped(torch.tensor([0, 1, 9, -100]), classes=10, source=1, target=4)
        tensor([   0,    4,    9, -100])
    """
    one_hot = labels.dim() == 2 and labels.shape[1] > 1
    if one_hot:
        classes = min(classes, labels.shape[1])
    if source is None and target is None:
        if one_hot:
            return torch.cat([labels[:, :classes].flip(1), labels[:, classes:]], dim=1)
        return torch.where((labels >= 0) & (labels < classes), classes - 1 - labels, labels)
    found = class_indices(labels)
    chosen = (found >= 0) & (found < classes) if source is None else found == source
    if target is not None:
        return relabeled(labels, chosen, target)
    assert source is not None
    return relabeled(labels, chosen, classes - 1 - source)
