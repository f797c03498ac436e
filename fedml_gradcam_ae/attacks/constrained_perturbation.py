"""The constrained perturbation: the upload that hurts the average most without leaving a ball around it.

Source: Zheng et al., "GradCAM-AE", ACM TOPS 2025, section 4, equations (7), (9a) and (9b). The paper leaves the
solver open; this one is projected gradient ascent with steps of fixed length, which keeps the best iterate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import ColludingSettings, deviating, jitter_noise, overhear, own_images
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.tied import tied_names, with_one_value
from fedml_gradcam_ae.contract.updates import flatten, unflatten, weighted_mean
from fedml_gradcam_ae.maths.ascent import project, steepest
from fedml_gradcam_ae.networks.evaluating import answer
from fedml_gradcam_ae.networks.images import seeded_generator
from fedml_gradcam_ae.networks.outputs import Classifier, OutputSettings, count_classes

Objective = Callable[[Tensor], Tensor]


@register_attack("constrained_perturbation")
class ConstrainedPerturbation(Attack):
    r"""Maximize F(W_g') over W' with ||W' - W_g'|| <= r, W_g' the global model that W' contaminates.

    The attackers pool what they overhear, agree on one W' and upload it all. With m the sample-weighted mean of the
    overheard uploads and b the attackers' share of all samples, (7) reads W_g' = (1 - b) m + b W', so
    W' - W_g' = (1 - b) (W' - m): the moving ball of (9b) is the fixed ball ||W' - m|| <= r / (1 - b).
    """

    class Settings(OutputSettings, ColludingSettings):
        """Distances are over the trainable parameters; BatchNorm's statistics are the overheard mean's, and what
        `own_deviation` adds to them."""

        radius: float = Field(
            default=1.0,
            gt=0,
            description="r, in units of the largest distance between an overheard upload and their mean",
        )
        poisoning_ratio: float = Field(
            default=1.0,
            gt=0,
            le=1,
            description="share of the parameters that may change (Table 5), largest slope first",
        )
        steps: int = Field(default=20, ge=1, description="ascent steps")
        images: int = Field(default=256, ge=1, description="images of the attackers' own that the loss is measured on")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same upload for each position in `attackers`, but for the jitter and their own deviations.

        The loss is measured on images that the attackers hold; a Round without `local_data` (an attack staged on a
        server) takes the server's test data instead. Where nobody is benign, the attackers overhear themselves.
        """
        settings = self.settings
        names = round.parameters
        heard = overhear(round, attackers, settings)
        weights = torch.tensor([float(round.samples[i]) for i in heard], dtype=torch.float64)
        claimed = sum(float(round.samples[i]) for i in attackers)
        share = claimed / (claimed + float(weights.sum()))
        mean = weighted_mean([round.uploads[i] for i in heard], (weights / weights.sum()).tolist())
        center = flatten(mean, names)
        distances = [float((flatten(round.uploads[i], names) - center).norm()) for i in heard]

        network, like = Classifier(round.network, settings.logits), next(round.network.parameters())
        round = replace(round, network=network)
        any_image, _ = own_images(round, attackers, 1, seeded_generator(settings.seed, 2, round.number), labeled=False)
        generator = seeded_generator(settings.seed, 2, round.number)
        images, labels = own_images(
            round, attackers, settings.images, generator, classes=count_classes(network, any_image.to(like))
        )
        damage = ContaminatedLoss(network, mean, names, share, images.to(like), labels.to(like.device))
        radius = settings.radius * max(distances) / (1 - share)
        poisoned = self.climb(
            self.objective(round, attackers, heard, damage),
            center.to(like.device),
            radius=radius,
            changeable=math.ceil(settings.poisoning_ratio * len(center)),
            steps=settings.steps,
        ).to(center.device)
        length = settings.jitter * sum(distances) / len(distances)
        uploads = []
        for attacker, position in enumerate(attackers):
            added = torch.zeros(len(center), dtype=torch.float64, device=center.device)
            if length:
                added += jitter_noise(settings, round.number, attacker, len(center), length).to(center.device)
            if settings.own_deviation:
                added += settings.own_deviation * (flatten(round.uploads[position], names).double() - center)
            copy = self._with(added, poisoned, center, radius) if length or settings.own_deviation else poisoned
            rest = deviating(mean, round.uploads[position], settings.own_deviation)
            uploads.append({**rest, **unflatten(copy, mean, names)})
        return [{name: upload[name].to(like, copy=True) for name, like in mean.items()} for upload in uploads]

    def objective(
        self, round: Round, attackers: Sequence[int], heard: Sequence[int], damage: ContaminatedLoss
    ) -> Objective:
        """What is maximized over W', a function from (parameters,) to a scalar: F(W_g')."""
        return damage

    def climb(self, objective: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
        """The upload W', (parameters,), that is found."""
        return projected_gradient_ascent(objective, center, radius, changeable, steps)

    def _with(self, added: Tensor, upload: Tensor, center: Tensor, radius: float) -> Tensor:
        """One attacker's own copy, back in the ball and changed only where parameters may change."""
        if self.settings.poisoning_ratio < 1:
            added = added * (upload != center)
        return center + project((upload - center).double() + added, radius).to(center.dtype)


class ContaminatedLoss:
    """F(W_g') for an upload W': the cross-entropy of (1 - b) m + b W' on fixed images."""

    def __init__(
        self,
        network: nn.Module,
        mean: dict[str, Tensor],
        names: list[str],
        share: float,
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self.network, self.names, self.share = network, names, share
        self.images, self.labels = images, labels
        self.mean = {name: tensor.to(images.device) for name, tensor in mean.items()}
        self.center = flatten(self.mean, names)
        self.tied = tied_names(network)

    def __call__(self, upload: Tensor) -> Tensor:
        """The loss, a scalar, of a flat upload of shape (parameters,)."""
        contaminated = (1 - self.share) * self.center + self.share * upload
        tensors = with_one_value({**self.mean, **unflatten(contaminated, self.mean, self.names)}, self.tied)
        scores = answer(self.network, tensors, self.images)
        return nn.functional.cross_entropy(scores, self.labels)


def projected_gradient_ascent(loss: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
    """Climb from the center of a ball to where the loss is largest, staying in the ball.

    Args:
        loss: a differentiable function of (parameters,).
        center: (parameters,).
        radius: of the ball, Euclidean.
        changeable: how many parameters may differ from the center: those with the steepest slope there.
        steps: each of length 2.5 * radius / steps along the gradient, so that the ball can be crossed.

    Returns:
        The best point that was visited, the center included: its loss is never below the center's.
    """
    best, best_loss = center, -math.inf
    moved = torch.zeros_like(center)
    mask: Tensor | None = None
    for step in range(steps + 1):
        point = (center + moved).requires_grad_()
        with torch.enable_grad():
            value = loss(point)
            (gradient,) = torch.autograd.grad(value, point)
        point = point.detach()
        if value.item() > best_loss:
            best, best_loss = point, value.item()
        mask = steepest(gradient, changeable) if mask is None else mask
        gradient = gradient * mask
        length = float(gradient.norm())
        if step == steps or not math.isfinite(length) or length == 0:
            break
        moved = project(moved + gradient * (2.5 * radius / steps / length), radius)
    return best
