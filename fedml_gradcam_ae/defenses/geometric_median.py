"""The geometric median (RFA): the point with the least sum of distances to the uploads, over all parameters jointly.

Source: Pillutla et al., "Robust Aggregation for Federated Learning", arXiv 1912.13445, algorithm 2, the smoothed
Weiszfeld iteration. Every iterate is a weighted mean of the updates, so distances to it follow from the Gram matrix and
the iteration never touches the parameters. ByzFL makes the same steps, 3 of them with nu = 0.1 unless told otherwise;
FedML's `rfa` works tensor by tensor and, with equal sample counts, answers with the first client's model.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings

_STILL = 1e-10
_SPANNED = 1e-14
_OUT_OF_ALL_PROPORTION = 1000.0


@register_defense("geometric_median")
class GeometricMedian(Defense):
    """Average with the weights that make the mean the geometric median."""

    class Settings(DefenseSettings):
        """RFA weighs clients by their samples; claimed counts are untrusted, so equal weights are the default."""

        weighting: Literal["equal", "samples"] = Field(
            default="equal", description="whether a client counts once, or as often as it claims samples (as in RFA)"
        )
        smoothing: float = Field(default=1e-6, gt=0, description="nu: distances count as at least this")
        iterations: int = Field(default=100, ge=1, description="Weiszfeld steps at most")

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Weights; nobody is left out as a whole. The score is the distance to the geometric median."""
        settings = self.settings
        shares = torch.tensor([float(n) for n in round.samples], dtype=torch.float64)
        shares = shares / shares.sum() if settings.weighting == "samples" else torch.ones_like(shares) / len(shares)
        points = coordinates(round.updates.gram.cpu())
        weights = geometric_median_weights(points, shares, settings.smoothing, settings.iterations)
        return Verdict(
            weights=weights.tolist(),
            scores=distances_to_mean(points, weights).tolist(),
        )


def geometric_median_weights(points: Tensor, shares: Tensor, smoothing: float, iterations: int) -> Tensor:
    """The weights p with which sum_i p_i x_i minimizes sum_i a_i max(||x_i - z||, nu) over z, about.

    Args:
        points: (clients, dimensions), x, float64.
        shares: (clients,), a, sum 1.
        smoothing: nu.
        iterations: at most so many; fewer once the mean no longer moves by 1e-10 of the median distance to it.

    Returns:
        (clients,), sum 1.
    """
    weights = _start(points, shares)
    for _ in range(iterations):
        distances = distances_to_mean(points, weights)
        pulls = shares / distances.clamp(min=smoothing)
        renewed = pulls / pulls.sum()
        moved = float(((renewed - weights) @ points).norm())
        weights = renewed
        if moved <= _STILL * max(smoothing, float(distances.median())):
            break
    return weights


def _start(points: Tensor, shares: Tensor) -> Tensor:
    """The weights to start with: the shares of all points but those that lie out of all proportion.

    Each step takes a factor of about the number of clients off a distant point's pull on the mean: from 1e18 times the
    usual distance, the way back would take more steps than there are.
    """
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    usual = distances.quantile(0.5, dim=1)
    center = usual.argmin()
    if not usual[center] > 0:
        return shares
    kept = torch.where(distances[center] <= _OUT_OF_ALL_PROPORTION * usual[center], shares, torch.zeros_like(shares))
    return kept / kept.sum()


def coordinates(gram: Tensor) -> Tensor:
    """Points with these inner products, (clients, clients), up to rounding: the rows of a Cholesky factor.

    The shortest vectors come first, so that each one's coordinates are as exact as its own inner products, however
    long others are; a difference of two entries of the Gram matrix would lose them.

    Args:
        gram: (clients, clients), <u_i, u_j>, float64.
    """
    order = gram.diagonal().sort().indices
    scale = gram.diagonal().clamp(min=0).sqrt()
    inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
    cosines = (gram * inverse[:, None] * inverse)[order][:, order]
    factor = torch.zeros_like(gram)
    for column in range(len(gram)):
        left = cosines[column:, column] - factor[column:, :column] @ factor[column, :column]
        if left[0] > _SPANNED:  # else it is what rounding leaves of a vector that the ones before it span
            factor[column:, column] = left / left[0].sqrt()
    # Vectors that are nearly parallel blow up the rounding; their lengths are known.
    factor /= torch.linalg.vector_norm(factor, dim=1, keepdim=True).clamp(min=_SPANNED)
    points = torch.zeros_like(gram)
    points[order] = factor * scale[order][:, None]
    return points


def distances_to_mean(points: Tensor, weights: Tensor) -> Tensor:
    """||x_i - z|| for z = sum_j p_j x_j, (clients,).

    Args:
        points: (clients, dimensions).
        weights: (clients,), p.
    """
    distances: Tensor = torch.linalg.vector_norm(points - weights @ points, dim=1)
    return distances
