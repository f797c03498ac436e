"""Uniform noise: the attacker's honest model plus U(low, high) on every weight and bias.

Source: the attack in the published GradCAM-AE code, with U(1, 2), where the paper describes the constrained
perturbation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("uniform_noise")
class UniformNoise(Attack):
    """Uniform noise on the honest model, drawn separately for each attacker; BatchNorm's statistics stay honest.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.uniform_noise import UniformNoise
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (0.1, 0.3, 0.2)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> (upload,) = UniformNoise(UniformNoise.Settings(low=1.0, high=2.0)).poison(round, attackers=[2])
        >>> 1.2 <= float(upload["weight"]) <= 2.2
        True
    """

    class Settings(AttackSettings):
        """The range of the noise; the authors' code has U(1, 2)."""

        low: float = Field(default=1.0, description="lower bound of the noise that is added to a weight")
        high: float = Field(default=2.0, description="upper bound of the noise that is added to a weight")

        @model_validator(mode="after")
        def _check_range(self) -> UniformNoise.Settings:
            if self.low > self.high:
                raise ValueError(f"low must not exceed high, found low {self.low} and high {self.high}")
            return self

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one noisy upload for each position in `attackers`."""
        trained = {name for name, _ in round.network.named_parameters()}
        generator = seeded_generator(self.settings.seed, 1, round.number)
        low, span = self.settings.low, self.settings.high - self.settings.low

        def noisy(tensor: Tensor) -> Tensor:
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            return tensor + low + span * noise.to(tensor.device)

        return [
            {name: noisy(tensor) if name in trained else tensor for name, tensor in round.uploads[attacker].items()}
            for attacker in attackers
        ]
