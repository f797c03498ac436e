"""The constrained perturbation: the upload that hurts the average most without leaving a ball around it.

Source: Zheng et al., "GradCAM-AE", ACM TOPS 2025, section 4, equations (7), (9a) and (9b). The paper leaves the
solver open; this one is projected gradient ascent with steps of fixed length, which keeps the best iterate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from fedml_gradcam_ae.federation import Round
from fedml_gradcam_ae.images import draw_images, seeded_generator
from fedml_gradcam_ae.registry import register_attack
from fedml_gradcam_ae.settings import AttackSettings
from fedml_gradcam_ae.updates import flatten, unflatten, weighted_mean


@register_attack("constrained_perturbation")
class ConstrainedPerturbation:
    r"""Maximize F(W_g') over W' with ||W' - W_g'|| <= r, W_g' the global model that W' contaminates.

    The attackers pool what they overhear, agree on one W' and upload it all. With m the sample-weighted mean of the
    overheard uploads and b the attackers' share of all samples, (7) reads W_g' = (1 - b) m + b W', so
    W' - W_g' = (1 - b) (W' - m): the moving ball of (9b) is the fixed ball ||W' - m|| <= r / (1 - b).
    """

    class Settings(AttackSettings):
        """Distances are over the trainable parameters; BatchNorm's statistics are the overheard mean's."""

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
        eavesdropped: int | None = Field(
            default=None, ge=2, description="J, how many benign uploads are overheard each round; null: all of them"
        )
        steps: int = Field(default=20, ge=1, description="ascent steps")
        images: int = Field(default=256, ge=1, description="images of the attackers' own that the loss is measured on")

    def __init__(self, settings: ConstrainedPerturbation.Settings) -> None:
        self.settings = settings

    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same upload for each position in `attackers`.

        The loss is measured on images that the attackers hold; a Round without `local_data` (an attack staged on a
        server) takes the server's test data instead. Where nobody is benign, the attackers overhear themselves.
        """
        settings = self.settings
        names = round.parameters
        heard = self._overhear(round, attackers)
        weights = torch.tensor([float(round.samples[i]) for i in heard], dtype=torch.float64)
        claimed = sum(float(round.samples[i]) for i in attackers)
        share = claimed / (claimed + float(weights.sum()))
        mean = weighted_mean([round.uploads[i] for i in heard], (weights / weights.sum()).tolist())
        center = flatten(mean, names)
        furthest = max(float((flatten(round.uploads[i], names) - center).norm()) for i in heard)

        images, labels = self._own_images(round, attackers)
        device = next(round.network.parameters()).device
        loss = ContaminatedLoss(round.network, mean, names, share, images.to(device), labels.to(device))
        poisoned = projected_gradient_ascent(
            loss,
            center.to(device),
            radius=settings.radius * furthest / (1 - share),
            changeable=math.ceil(settings.poisoning_ratio * len(center)),
            steps=settings.steps,
        )
        upload = {**mean, **unflatten(poisoned.to(center.device), mean, names)}
        return [{name: tensor.clone() for name, tensor in upload.items()} for _ in attackers]

    def _overhear(self, round: Round, attackers: Sequence[int]) -> list[int]:
        """Positions of the J benign uploads that are overheard, drawn anew each round."""
        benign = [position for position in range(len(round.uploads)) if position not in attackers]
        generator = seeded_generator(self.settings.seed, 1, round.number)
        order = torch.randperm(len(benign), generator=generator).tolist()
        return sorted(benign[i] for i in order[: self.settings.eavesdropped]) or list(attackers)

    def _own_images(self, round: Round, attackers: Sequence[int]) -> tuple[Tensor, Tensor]:
        generator = seeded_generator(self.settings.seed, 2, round.number)
        own = [
            round.local_data[round.client_ids[i]]
            for i in attackers
            if round.local_data.get(round.client_ids[i]) is not None
        ]
        if not own:
            return draw_images(round.test_data, self.settings.images, generator)
        share = math.ceil(self.settings.images / len(own))
        drawn = [draw_images(data, share, generator) for data in own]
        return torch.cat([images for images, _ in drawn]), torch.cat([labels for _, labels in drawn])


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

    def __call__(self, upload: Tensor) -> Tensor:
        """The loss, a scalar, of a flat upload of shape (parameters,)."""
        contaminated = (1 - self.share) * self.center + self.share * upload
        tensors = {**self.mean, **unflatten(contaminated, self.mean, self.names)}
        scores = functional_call(self.network, tensors, (self.images,))
        return nn.functional.cross_entropy(scores, self.labels)


def projected_gradient_ascent(
    loss: ContaminatedLoss, center: Tensor, radius: float, changeable: int, steps: int
) -> Tensor:
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
        if mask is None and changeable < len(center):
            mask = torch.zeros_like(center)
            mask[gradient.abs().topk(changeable).indices] = 1
        if mask is not None:
            gradient = gradient * mask
        length = float(gradient.norm())
        if step == steps or not math.isfinite(length) or length == 0:
            break
        moved = project(moved + gradient * (2.5 * radius / steps / length), radius)
    return best


def project(vector: Tensor, radius: float) -> Tensor:
    """The nearest point of the ball of this radius around zero (9b)."""
    length = float(vector.double().norm())
    return vector if length <= radius else vector * (radius / length)
