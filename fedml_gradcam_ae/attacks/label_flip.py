"""Label flipping: the attackers train honestly, on labels that are wrong.

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
    """y -> C - 1 - y in the attackers' own training, which runs as every client's does."""

    class Settings(OutputSettings, AttackSettings):
        """C, where the network's output does not say it."""

        classes: int | None = Field(
            default=None, ge=2, description="C, the number of classes; null: the width of the network's output"
        )

    settings: Settings

    @override
    def poison_data(self, network: nn.Module, data: Iterable[Any]) -> FlippedLabels:
        """What an attacker trains on: batches like the given ones, the images unchanged."""
        classes = self.settings.classes or _output_width(Classifier(network, self.settings.logits), data)
        return FlippedLabels(data, classes)

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[Upload]:
        """The uploads as they are: the poison came in by training."""
        return [round.uploads[position] for position in attackers]


class FlippedLabels:
    """Batches of some data with the labels C - 1 - y; whatever is drawn or shuffled there is here as well."""

    def __init__(self, data: Iterable[Any], classes: int) -> None:
        self.data, self.classes = data, classes

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            _, place = places(batch)
            changed = dict(batch) if isinstance(batch, Mapping) else list(batch)
            changed[place] = flipped(torch.as_tensor(batch[place]), self.classes)
            yield changed if isinstance(batch, (Mapping, list)) else tuple(changed)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # as far as the data have a length


def flipped(labels: Tensor, classes: int) -> Tensor:
    """C - 1 - y; what is no label (-100, say) stays.

    Args:
        labels: (images,) or (images, 1), or one-hot rows (images, classes).
        classes: C.
    """
    if labels.dim() == 2 and labels.shape[1] > 1:
        return labels.flip(1)
    return torch.where((labels >= 0) & (labels < classes), classes - 1 - labels, labels)


def _output_width(network: Classifier, data: Iterable[Any]) -> int:
    """The number of classes that the network's answer to one of the images tells apart."""
    images, _ = draw_images(data, 1, torch.Generator().manual_seed(0), labeled=False)
    return count_classes(network, images.to(next(network.parameters()).device))
