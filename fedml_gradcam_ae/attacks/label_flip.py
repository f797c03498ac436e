"""Label flipping: the attackers train honestly, on labels that are wrong.

Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
section 5, which flips a label y of C classes to C - 1 - y.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import nn

from fedml_gradcam_ae.evaluating import evaluating
from fedml_gradcam_ae.federation import Round, Upload
from fedml_gradcam_ae.images import draw_images
from fedml_gradcam_ae.registry import register_attack
from fedml_gradcam_ae.settings import AttackSettings


@register_attack("label_flip")
class LabelFlip:
    """y -> C - 1 - y in the attackers' own training, which runs as every client's does."""

    class Settings(AttackSettings):
        """C, where the network's output does not say it."""

        classes: int | None = Field(
            default=None, ge=2, description="C, the number of classes; null: the width of the network's output"
        )

    def __init__(self, settings: LabelFlip.Settings) -> None:
        self.settings = settings

    def poison_data(self, network: nn.Module, data: Iterable[Any]) -> FlippedLabels:
        """What an attacker trains on: batches like the given ones, the images unchanged."""
        return FlippedLabels(data, self.settings.classes or _output_width(network, data))

    def poison(self, round: Round, attackers: Sequence[int]) -> list[Upload]:
        """The uploads as they are: the poison came in by training."""
        return [round.uploads[position] for position in attackers]


class FlippedLabels:
    """Batches (images, C - 1 - labels) of some data; whatever is drawn or shuffled there is here as well."""

    def __init__(self, data: Iterable[Any], classes: int) -> None:
        self.data, self.classes = data, classes

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.data:
            yield images, self.classes - 1 - labels

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # as far as the data have a length


def _output_width(network: nn.Module, data: Iterable[Any]) -> int:
    """The width of the network's answer to one of the images."""
    images, _ = draw_images(data, 1, torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    with evaluating(network), torch.no_grad():
        return int(network(images.to(device)).shape[1])
