"""Sign flip: each attacker trains honestly and uploads its negated update.

Source: as commonly implemented, after Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed
Learning from Heterogeneous Datasets", AAAI 2019. Here each attacker negates its own update. In ByzFL all attackers send
the negated benign mean, which is `ipm` with epsilon 1.
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
    """The update -scale * u_i in place of attacker i's honest u_i; BatchNorm's running statistics stay honest.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.sign_flip import SignFlip
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 3.0, 2.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> SignFlip(SignFlip.Settings()).poison(round, attackers=[2])
        [{'weight': tensor([[-2.]])}]
    """

    class Settings(AttackSettings):
        """The settings of the attack; it overhears no client, and the attackers' uploads differ."""

        scale: float = Field(default=1.0, gt=0, description="length of the flipped update, in units of the honest one")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one negated upload for each position in `attackers`."""
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
