"""An attack adapted to GradCAM-AE: a poisoned upload whose heat maps are similar to benign ones.

Source: this project's own, after the advice to test a defense with an attacker that knows it (Tramer et al., "On
Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020): the constrained perturbation (9a, 9b) with a penalty
on the distance between the upload's heat maps and the benign ones. The maps are those of a profile of `gradcam_ae`:
(12) for `paper`; for `robust` the upload's changes of the signed maps of all classes, on images of two sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.constrained_perturbation import ConstrainedPerturbation, ContaminatedLoss, Objective
from fedml_gradcam_ae.attacks.shared.colluders import own_images
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import unflatten
from fedml_gradcam_ae.contract.upload import Upload
from fedml_gradcam_ae.defenses.gradcam_ae.class_probe import ClassProbe
from fedml_gradcam_ae.defenses.gradcam_ae.settings import ProfileSettings
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import differences
from fedml_gradcam_ae.heatmaps import Probe, class_maps, differentiable_class_maps, differentiable_grad_cam
from fedml_gradcam_ae.maths.ascent import auto_ascent
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("adaptive_heatmap")
class AdaptiveHeatmap(ConstrainedPerturbation):
    r"""The upload W' that maximizes F(W_g') - lambda ||CAM(W') - mean CAM||^2 / v with ||W' - W_g'|| <= r.

    mean CAM is the mean of the overheard uploads' maps and v the mean of their squared distances to it, so that an
    average benign upload has the penalty lambda. Where the overheard maps are all equal, v is the number of pixels
    instead. Against `robust`, whose images have two sizes, the penalty is the mean of both sizes' penalties.

    Example:
        The penalty of a map with a single pixel, in units of that of an average benign upload:

        >>> import torch
        >>> from fedml_gradcam_ae.attacks.adaptive_heatmap import _distance
        >>> benign = torch.tensor([[0.2], [0.4]])  # the maps of two overheard uploads
        >>> poisoned = {"weight": torch.tensor([0.6])}
        >>> f"{_distance(lambda upload: upload['weight'], benign, poisoned):.1f}"
        '9.0'
    """

    class Settings(ConstrainedPerturbation.Settings, ProfileSettings):
        """The settings of the attack; the probe's keys have the same meaning and defaults as in the defense."""

        profile: Literal["robust", "paper"] = Field(
            default="robust", description="profile of the defense whose heat maps are to look benign"
        )
        steps: int = Field(default=50, ge=1, description="number of ascent steps")
        probe: Literal["known", "own"] = Field(
            default="known",
            description="`known`: the images that a defense with the same probe keys and probe_seed as its seed draws "
            "in this round; `own`: images that the attackers hold",
        )
        probe_seed: int = Field(default=0, ge=0, description="the defense's seed, which draws the known probe images")
        map_weight: float = Field(
            default=1.0, ge=0, description="lambda, the weight of the heat maps' distance against the loss"
        )

    settings: AdaptiveHeatmap.Settings

    @override
    def objective(
        self, round: Round, attackers: Sequence[int], heard: Sequence[int], damage: ContaminatedLoss
    ) -> Objective:
        """Return the loss less the penalty, as a function of the flat upload (parameters,)."""
        settings = self.settings
        data = round.test_data
        if settings.probe == "own":
            generator = seeded_generator(settings.seed, 4, round.number)
            of_both_sizes = (settings.probe_images, settings.native_images)
            images = max(of_both_sizes) if settings.profile == "robust" else settings.probe_images
            data = [own_images(round, attackers, images, generator)]
        distances = self._from_robust if settings.profile == "robust" else self._from_paper
        found = distances(round, [round.uploads[i] for i in heard], data)

        def objective(upload: Tensor) -> Tensor:
            tensors = {**damage.mean, **unflatten(upload, damage.mean, damage.names)}
            return damage(upload) - settings.map_weight * torch.stack([far(tensors) for far in found]).mean()

        return objective

    @override
    def climb(self, objective: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
        """Return the upload W', (parameters,), by `auto_ascent`.

        With the penalty, the maximum may be inside the ball, where steps of fixed length would miss it.
        """
        return auto_ascent(objective, center, radius, changeable, steps)

    @property
    def _probe_settings(self) -> AdaptiveHeatmap.Settings:
        return self.settings.model_copy(update={"seed": self.settings.probe_seed})

    def _from_paper(self, round: Round, benign: Sequence[Upload], data: Any) -> list[Callable[[Upload], Tensor]]:
        """Return the distance function of an upload's maps (12), scaled as the probe's settings say."""
        probe, network = Probe(self._probe_settings), round.network
        layer = probe.prepare(network, data)
        images, labels = probe.draw(network, data, round.number)
        target, method = labels if self.settings.target_class == "label" else None, self.settings.map_method

        def maps(upload: Upload) -> Tensor:
            return probe.scale(differentiable_grad_cam(network, upload, images, layer, target, method)[None])[0]

        return [partial(_distance, maps, probe.scale(probe.raw_maps(network, benign, images, layer, target)))]

    def _from_robust(self, round: Round, benign: Sequence[Upload], data: Any) -> list[Callable[[Upload], Tensor]]:
        """Return the distance functions of an upload's changes of all classes' maps, for large and native images."""
        probe, network = ClassProbe(self._probe_settings), round.network
        layer = probe.prepare(network, data)
        drawn = probe.draw(network, data, round.number)

        def distance(images: Tensor) -> Callable[[Upload], Tensor]:
            of_all = class_maps(network, [round.global_model, *benign], images, layer)

            def changes(upload: Upload) -> Tensor:
                maps = differentiable_class_maps(network, upload, images, layer)
                return differences(maps[None], of_all[0])[0]

            return partial(_distance, changes, differences(of_all[1:], of_all[0]))

        return [distance(drawn.large), distance(drawn.native)]


def _distance(maps: Callable[[Upload], Tensor], benign: Tensor, upload: Upload) -> Tensor:
    """Return ||CAM(W') - mean CAM||^2 / v.

    Args:
        maps: the function CAM from a state dict to its heat maps.
        benign: (clients, ...), the heat maps of the overheard uploads.
        upload: the state dict W'.
    """
    mean = benign.mean(dim=0)
    spread = float((benign - mean).square().flatten(1).sum(dim=1).mean()) or float(mean.numel())
    return (maps(upload) - mean).square().sum() / spread
