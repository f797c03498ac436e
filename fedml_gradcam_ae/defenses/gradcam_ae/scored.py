"""The scores that a profile gives a round's uploads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """The scores of one round's uploads; every list runs over the scored uploads.

    Attributes:
        scores: higher is more suspicious; infinite where the heat maps hold NaN or infinity.
        threshold: the score above which a client is flagged.
        heat_maps: (clients, images, height, width), the autoencoder's input; NaN where unusable.
        reconstructions: (clients, images, height, width), the autoencoder's output.
        seconds: the time spent, by stage.
        why: the reason for each score above the threshold, where the profile names one; else an empty string.
    """

    scores: Sequence[float]
    threshold: float
    heat_maps: Tensor
    reconstructions: Tensor
    seconds: Mapping[str, float]
    why: Sequence[str] = field(default_factory=list)
