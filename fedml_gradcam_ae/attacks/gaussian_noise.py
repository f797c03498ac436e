"""Gaussian noise: the attacker's honest model plus N(0, sigma^2) on every weight and bias.

Source: the Gaussian attack of Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, section 4, whose attackers send nothing but noise. Here it is added to the honest upload.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("gaussian_noise")
class GaussianNoise(Attack):
    """Gaussian noise on the honest model, drawn separately for each attacker; BatchNorm's statistics stay honest.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.gaussian_noise import GaussianNoise
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.full((1, 10_000), value)} for value in (0.1, 0.3, 0.2)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 10_000)},
        ...     network=torch.nn.Linear(10_000, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> (upload,) = GaussianNoise(GaussianNoise.Settings(sigma=0.5)).poison(round, attackers=[2])
        >>> noise = upload["weight"] - 0.2
        >>> bool(noise.mean().abs() < 0.02), f"{noise.std():.1f}"
        (True, '0.5')
    """

    class Settings(AttackSettings):
        """The size of the noise."""

        sigma: float = Field(
            default=0.1,
            gt=0,
            description="the standard deviation of the noise on a weight; with `relative`, the length of the noise in "
            "units of the honest update's",
        )
        relative: bool = Field(default=False, description="whether the noise is as long as the update asks")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one noisy upload for each position in `attackers`.

        With `relative`, the standard deviation is sigma ||u|| / sqrt(d), which makes the noise sigma ||u|| long on
        average (more exactly, its mean square is that length's).
        """
        names, generator = round.parameters, seeded_generator(self.settings.seed, 1, round.number)
        uploads = [round.uploads[attacker] for attacker in attackers]
        deviations = [self.settings.sigma] * len(uploads)
        if self.settings.relative:
            updates = Updates(uploads, round.global_model, names)
            lengths = updates.lengths().norm(dim=1) / math.sqrt(sum(round.global_model[n].numel() for n in names))
            deviations = (self.settings.sigma * torch.nan_to_num(lengths, 0.0, 0.0)).tolist()
        return [
            with_noise(upload, names, round.tied, deviation, generator)
            for upload, deviation in zip(uploads, deviations, strict=True)
        ]
