"""IPM, inner product manipulation: the benign mean, backward.

Source: Xie et al., "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019. Written
for gradients there; here for updates. Its experiments use epsilon 0.1, and 2 among others in later work; libraries call
it tau and differ in the default only.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round


@register_attack("ipm")
class InnerProductManipulation(Attack):
    """All attackers upload u = -epsilon * mean, the mean over the overheard updates, not weighted by samples."""

    class Settings(ColludingSettings):
        """A small epsilon hides near the global model, one above 1 turns the average around."""

        epsilon: float = Field(default=0.1, gt=0, description="how far backward, in units of the benign mean")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        return colluders.upload(-self.settings.epsilon * colluders.mean)
