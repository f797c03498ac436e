"""Sign flip: each attacker trains honestly and uploads the opposite of what it learned.

Source: as commonly implemented, after Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed
Learning from Heterogeneous Datasets", AAAI 2019. Each flips its own update here; in ByzFL all attackers send the
benign mean flipped, which is `ipm` with epsilon 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings


@register_attack("sign_flip")
class SignFlip(Attack):
    """Attacker i uploads -scale * u_i instead of its honest u_i; BatchNorm's running statistics stay honest."""

    class Settings(AttackSettings):
        """Nobody is overheard, and no two attackers upload the same."""

        scale: float = Field(default=1.0, gt=0, description="length of the flipped update, in units of the honest one")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One flipped upload for each position in `attackers`."""
        trained, scale = set(round.parameters), self.settings.scale

        def flipped(honest: Tensor, start: Tensor) -> Tensor:
            return (start.double() - scale * (honest.double() - start.double())).to(start.dtype)

        return [
            {
                name: flipped(tensor, round.global_model[name]) if name in trained else tensor.clone()
                for name, tensor in round.uploads[attacker].items()
            }
            for attacker in attackers
        ]
