"""What a profile says of a round's uploads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """Every list runs over the uploads that were scored.

    Attributes:
        scores: higher is more suspicious; infinite where the heat maps hold NaN or infinity.
        threshold: the score above which a client is flagged.
        heat_maps: (clients, images, height, width), what the autoencoder was given; NaN where unusable.
        reconstructions: the same shape.
        seconds: by stage.
        why: what was found, for a score above the threshold that has a name; empty for others.
    """

    scores: Sequence[float]
    threshold: float
    heat_maps: Tensor
    reconstructions: Tensor
    seconds: Mapping[str, float]
    why: Sequence[str] = field(default_factory=list)
