"""The attack on the defense itself: hurt the average, with heat maps like everybody's.

Source: this project's own, after the advice to test a defense with an attacker who knows it (Tramer et al., "On
Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020): the constrained perturbation (9a, 9b) with a penalty
on the distance between the upload's heat maps (12) and the benign ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedml_gradcam_ae.attacks.constrained_perturbation import ConstrainedPerturbation, ContaminatedLoss, Objective
from fedml_gradcam_ae.auto_ascent import auto_ascent
from fedml_gradcam_ae.colluders import own_images
from fedml_gradcam_ae.federation import Round
from fedml_gradcam_ae.heatmaps import Probe, ProbeSettings, differentiable_grad_cam, grad_cam
from fedml_gradcam_ae.images import seeded_generator
from fedml_gradcam_ae.registry import register_attack
from fedml_gradcam_ae.updates import unflatten


@register_attack("adaptive_heatmap")
class AdaptiveHeatmap(ConstrainedPerturbation):
    r"""Maximize F(W_g') - lambda ||CAM(W') - mean CAM||^2 / v over W' with ||W' - W_g'|| <= r.

    mean CAM is the mean of the overheard uploads' maps and v the mean of their squared distances to it, so that a
    penalty of lambda is that of an average benign upload. Where the overheard maps all agree, v is the number of
    pixels instead.
    """

    class Settings(ConstrainedPerturbation.Settings, ProbeSettings):
        """The probe's keys mean what they mean to the defense, and have its defaults."""

        steps: int = Field(default=50, ge=1, description="ascent steps")
        probe: Literal["known", "own"] = Field(
            default="known",
            description="`known`: the images that a defense with the same probe keys and probe_seed as its seed draws "
            "in this round; `own`: images that the attackers hold",
        )
        probe_seed: int = Field(default=0, ge=0, description="the defense's seed, which draws the known probe images")
        map_weight: float = Field(
            default=1.0, ge=0, description="lambda, how much the heat maps' distance counts against the loss"
        )

    settings: AdaptiveHeatmap.Settings

    def __init__(self, settings: AdaptiveHeatmap.Settings) -> None:
        super().__init__(settings)
        keys = {key: getattr(settings, key) for key in ProbeSettings.model_fields}
        self.probe = Probe(ProbeSettings(**{**keys, "seed": settings.probe_seed}))

    def objective(
        self, round: Round, attackers: Sequence[int], heard: Sequence[int], damage: ContaminatedLoss
    ) -> Objective:
        """The loss less the penalty, a function of the flat upload (parameters,)."""
        settings, probe = self.settings, self.probe
        data = round.test_data
        if settings.probe == "own":
            generator = seeded_generator(settings.seed, 4, round.number)
            data = [own_images(round, attackers, settings.probe_images, generator)]
        layer = probe.prepare(round.network, data)
        images, labels = probe.draw(round.network, data, round.number)
        target = labels if settings.target_class == "label" else None

        uploads = [round.uploads[i] for i in heard]
        benign = probe.scale(grad_cam(round.network, uploads, images, layer, target))
        mean = benign.mean(dim=0)
        spread = float((benign - mean).square().flatten(1).sum(dim=1).mean()) or float(mean.numel())

        def objective(upload: Tensor) -> Tensor:
            tensors = {**damage.mean, **unflatten(upload, damage.mean, damage.names)}
            maps = probe.scale(differentiable_grad_cam(round.network, tensors, images, layer, target)[None])[0]
            return damage(upload) - settings.map_weight * (maps - mean).square().sum() / spread

        return objective

    def climb(self, objective: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
        """The upload W', (parameters,): a local maximum, inside the ball for the penalty: long steps miss it."""
        return auto_ascent(objective, center, radius, changeable, steps)
