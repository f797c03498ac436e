"""Evidence of reconstruction errors: autoencoders trained on other clients' heat maps fail on a client's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import held_out_reconstructions
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Finding, Kind, Shown
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    TINY,
    groups,
    in_units_of_mad,
    median_and_spread,
    z_score_exceeded_by,
)
from fedml_gradcam_ae.networks.images import seeded_generator

NEAR = 1 / 3  # Clients nearer to each other than this fraction of the median distance are held out together.
LARGEST_DEVIATION = 20.0  # MADs that deviations are clamped to, so that no upload dominates the training.


class MapErrors(Kind):
    """The reconstruction error of the client's heat maps, by an autoencoder trained on neither these nor similar ones.

    Args:
        settings: the autoencoder's settings, `folds`, `false_alarm` and `seed`; `GradCAMAESettings` explains them.
    """

    name = "errors"
    reason = "an autoencoder trained on other clients' heat maps reconstructs its own badly"

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return int(reference.sum()) >= FEWEST

    @override
    def score(self, observed: Observed, reference: Tensor) -> Finding:
        changes = observed.changes
        deviations = in_units_of_mad(changes.flatten(2), reference, LARGEST_DEVIATION)
        reconstructions = self.reconstruct(deviations, reference, observed.ratios < NEAR, observed.number)
        shown = Shown(deviations.view_as(changes), reconstructions.view_as(changes))
        scores = error_scores(deviations - reconstructions, reference, self.settings.false_alarm)
        return Finding(scores, [self.reason] * len(scores), shown)

    def reconstruct(self, deviations: Tensor, reference: Tensor, near: Tensor, number: int) -> Tensor:
        """Reconstruct each client's maps by an autoencoder trained on neither them nor the maps of similar clients.

        Args:
            deviations: (clients, images, numbers), in units of the MAD.
            reference: (clients,), bool: the reference set.
            near: (clients, clients), bool: the pairs that are held out together.
            number: the round, which seeds the initial weights.

        Returns:
            (clients, images, numbers); 0 where there are fewer than two folds.
        """
        settings = self.settings
        held = folds(groups(near), reference, settings.folds)
        if held is None:
            return torch.zeros_like(deviations)  # no client is left to train on: the error is the deviation itself
        return held_out_reconstructions(
            deviations.float(),
            held,
            hidden=settings.hidden_size,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            generator=seeded_generator(settings.seed, 1, number),
        ).to(deviations)


def error_scores(residuals: Tensor, reference: Tensor, false_alarm: float) -> Tensor:
    """Return the robust z-score of the logarithm of the reconstruction error (14), in units of its threshold.

    Args:
        residuals: (clients, images, numbers), maps less reconstructions.
        reference: (clients,), bool: the reference set.
        false_alarm: the share of benign clients that the threshold may flag.

    Returns:
        (clients,).

    Example:
        >>> residuals = torch.tensor([1.0, 1.1, 0.9, 1.2, 9.0]).view(5, 1, 1)
        >>> scores = error_scores(residuals, torch.tensor([True] * 4 + [False]), false_alarm=0.05)
        >>> [f"{score:.1f}" for score in scores.tolist()]
        ['-0.2', '0.2', '-0.5', '0.5', '7.6']
    """
    errors = residuals.abs().mean(dim=(1, 2)).clamp(min=TINY).log()
    center, spread = median_and_spread(errors, reference)
    return (errors - center) / spread / z_score_exceeded_by(false_alarm, int(reference.sum()))


def folds(together: Sequence[Sequence[int]], reference: Tensor, most: int) -> Tensor | None:
    """Return the clients that each fold's autoencoder is not trained on.

    The clients of a group are held out together. Clients outside of the reference set are held out by all folds.

    Args:
        together: groups of clients, each client in exactly one.
        reference: (clients,), bool.
        most: the largest number of folds.

    Returns:
        (folds, clients), bool; None if there are fewer than two groups with a client of the reference set.

    Example:
        >>> folds([[0, 1], [2], [3]], reference=torch.tensor([True, True, True, False]), most=5)
        tensor([[ True,  True, False,  True],
                [False, False,  True,  True]])
    """
    number = min(most, sum(bool(reference[list(group)].any()) for group in together))
    if number < 2:
        return None
    held = (~reference).repeat(number, 1)
    sizes = [0] * number
    for group in sorted(together, key=len, reverse=True):
        fold = sizes.index(min(sizes))
        sizes[fold] += int(reference[list(group)].sum())
        held[fold, list(group)] = True
    return held
