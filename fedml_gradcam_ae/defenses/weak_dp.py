"""Weak differential privacy: the mean of clipped updates, with Gaussian noise.

Source: Sun et al., "Can You Really Backdoor Federated Learning?", arXiv 1911.07963, section 5. It is called weak since
the noise is far smaller than a meaningful privacy guarantee needs. FedML's own `fedml:weak_dp` is accepted and never
called.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.defenses.norm_clipping import NormClipping
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.defenses.steps.clip_norms import NormClippingSettings
from fedml_gradcam_ae.networks.images import seeded_generator


@register_defense("weak_dp")
class WeakDP(NormClipping):
    """Norm clipping, and then noise N(0, sigma^2) on every trainable parameter of the aggregate.

    The paper's sigma is for a small network. Over d parameters the noise has the length sigma sqrt(d), which should be
    well below the length of an update.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.weak_dp import WeakDP
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.2, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> quiet = WeakDP(WeakDP.Settings(bound=2.0, noise=0.0)).judge(round)
        >>> noised = WeakDP(WeakDP.Settings(bound=2.0, noise=0.1)).judge(round)
        >>> quiet.model, 0 < float((noised.model["weight"] - quiet.model["weight"]).abs()) < 1
        ({'weight': tensor([[1.4000]])}, True)
    """

    class Settings(NormClippingSettings):
        """The bound M, and the noise."""

        noise: float = Field(
            default=0.025, ge=0, description="sigma: the noise's deviation (the unit of weights); the paper's is 0.025"
        )
        seed: int = Field(default=0, ge=0, description="draws the noise")

    settings: Settings
    not_composed = "it leaves out no client"

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the mean of the clipped updates with noise; the score is an update's length."""
        verdict = super().judge(round)
        assert verdict.model is not None
        generator = seeded_generator(self.settings.seed, round.number)
        return replace(
            verdict, model=with_noise(verdict.model, round.parameters, round.tied, self.settings.noise, generator)
        )
