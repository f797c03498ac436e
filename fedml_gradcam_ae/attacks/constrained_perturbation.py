"""The constrained perturbation: the upload that increases the average's loss most within a ball around the average.

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
    r"""The upload W' that maximizes the loss F(W_g') with ||W' - W_g'|| <= r, for the poisoned global model W_g'.

    The attackers pool the overheard uploads, agree on one W' and all upload it. With m the sample-weighted mean of the
    overheard uploads and b the attackers' share of all samples, (7) reads W_g' = (1 - b) m + b W', so
    W' - W_g' = (1 - b) (W' - m): the moving ball of (9b) is the fixed ball ||W' - m|| <= r / (1 - b).

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.constrained_perturbation import ConstrainedPerturbation
        >>> honest = torch.tensor([[1.0], [-1.0]])  # all images are of class 0
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"1.weight": scale * honest} for scale in (1.0, 1.2, 0.8, 1.0)],
        ...     samples=[10.0] * 4,
        ...     global_model={"1.weight": torch.zeros(2, 1)},
        ...     network=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False)),
        ...     test_data=[(torch.ones(4, 1, 1, 1), torch.zeros(4, dtype=torch.int64))],
        ... )
        >>> attack = ConstrainedPerturbation(ConstrainedPerturbation.Settings())
        >>> attack.poison(round, attackers=[3])  # the mean is 1, the radius is 0.2 / (1 - 1 / 4) in each weight
        [{'1.weight': tensor([[ 0.7333],
                [-0.7333]])}]
    """

    class Settings(OutputSettings, ColludingSettings):
        """The settings of the attack.

        Distances are over the trainable parameters. BatchNorm's statistics are those of the overheard mean, plus the
        attacker's own deviation where `own_deviation` is set.
        """

        radius: float = Field(
            default=1.0,
            gt=0,
            description="r, in units of the largest distance between an overheard upload and their mean",
        )
        poisoning_ratio: float = Field(
            default=1.0,
            gt=0,
            le=1,
            description="share of the parameters that may change (Table 5), those with the largest gradient first",
        )
        steps: int = Field(default=20, ge=1, description="number of ascent steps")
        images: int = Field(
            default=256, ge=1, description="number of the attackers' own images that the loss is measured on"
        )

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`; they differ only by jitter and own deviations.

        The loss is measured on the attackers' own images. For a Round without `local_data` (an attack staged on a
        server) it is measured on the server's test data. Where no client is benign, the attackers overhear themselves.
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
        """Return the function of W' to maximize, from (parameters,) to a scalar: F(W_g').

        Args:
            round: the round, its uploads all honest.
            attackers: positions of the attackers.
            heard: positions of the overheard uploads.
            damage: F(W_g').
        """
        return damage

    def climb(self, objective: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
        """Return the upload W', (parameters,); the arguments are those of `projected_gradient_ascent`."""
        return projected_gradient_ascent(objective, center, radius, changeable, steps)

    def _with(self, added: Tensor, upload: Tensor, center: Tensor, radius: float) -> Tensor:
        """Return an attacker's own copy of the upload, projected onto the ball.

        Where `poisoning_ratio` is below 1, only the parameters that the attack changed may differ from the upload.
        """
        if self.settings.poisoning_ratio < 1:
            added = added * (upload != center)
        return center + project((upload - center).double() + added, radius).to(center.dtype)


class ContaminatedLoss:
    """The loss F(W_g') as a function of an upload W': the cross-entropy of (1 - b) m + b W' on fixed images.

    Args:
        network: the architecture, on the device to compute on.
        mean: m, the state dict of the overheard mean.
        names: the trainable parameters, which the upload consists of.
        share: b, the attackers' share of all samples.
        images: (images, channels, height, width).
        labels: (images,), int64.
    """

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
        """Return the loss, a scalar, of a flat upload (parameters,)."""
        contaminated = (1 - self.share) * self.center + self.share * upload
        tensors = with_one_value({**self.mean, **unflatten(contaminated, self.mean, self.names)}, self.tied)
        scores = answer(self.network, tensors, self.images)
        return nn.functional.cross_entropy(scores, self.labels)


def projected_gradient_ascent(loss: Objective, center: Tensor, radius: float, changeable: int, steps: int) -> Tensor:
    """Maximize a loss within a ball by projected gradient ascent from the center.

    Args:
        loss: a differentiable function of (parameters,).
        center: (parameters,), the center of the ball.
        radius: the Euclidean radius of the ball.
        changeable: the number of parameters that may differ from the center: those with the steepest slope there.
        steps: the number of steps, each of length 2.5 * radius / steps along the gradient, so that they can cross the
            ball.

    Returns:
        The best visited point, the center included: its loss is never below the center's.

    Example:
        >>> projected_gradient_ascent(lambda point: point[0], torch.zeros(2), radius=1.0, changeable=2, steps=5)
        tensor([1., 0.])
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
