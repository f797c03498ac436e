"""The geometric median (RFA): the point with the least sum of distances to the uploads, over all parameters jointly.

Source: Pillutla et al., "Robust Aggregation for Federated Learning", arXiv 1912.13445, algorithm 2, the smoothed
Weiszfeld iteration. Every iterate is a weighted mean of the updates, so distances to it follow from the Gram matrix and
the iteration never reads the parameters. ByzFL makes the same steps, by default 3 of them with nu = 0.1. FedML's `rfa`
works tensor by tensor and, with equal sample counts, returns the first client's model.
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

_STILL = 1e-10  # the iteration stops once the mean moves by less than this, in median distances to it
_SPANNED = 1e-14  # a smaller squared rest of a unit vector is rounding: the vectors before it span it
_OUT_OF_ALL_PROPORTION = 1000.0  # uploads further out than this, in median distances, get no weight at the start


@register_defense("geometric_median")
class GeometricMedian(Defense):
    """The weighted mean of the uploads that is their geometric median.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.geometric_median import GeometricMedian
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = GeometricMedian(GeometricMedian.Settings()).judge(round)
        >>> [f"{weight:.3f}" for weight in verdict.weights]
        ['0.000', '1.000', '0.000']
        >>> [f"{score:.1f}" for score in verdict.scores]  # distances to the geometric median
        ['0.1', '0.0', '7.9']
    """

    class Settings(DefenseSettings):
        """The settings of the iteration.

        RFA weights clients by their samples. Equal weights are the default here, since claimed counts are untrusted.
        """

        weighting: Literal["equal", "samples"] = Field(
            default="equal",
            description="weights of the clients: equal, or proportional to their sample counts (as in RFA)",
        )
        smoothing: float = Field(
            default=1e-6,
            gt=0,
            description="nu, the lower bound of the distances that Weiszfeld's weights are divided by",
        )
        iterations: int = Field(default=100, ge=1, description="maximum number of Weiszfeld steps")

    settings: Settings
    not_composed = "it leaves out no client"

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the weights of the geometric median; no client is left out as a whole.

        The score is the distance to the geometric median.
        """
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
    """Return weights p for which z = sum_i p_i x_i approximately minimizes sum_i a_i max(||x_i - z||, nu).

    Args:
        points: (clients, dimensions), x, float64.
        shares: (clients,), a, sum 1.
        smoothing: nu.
        iterations: the largest number of iterations; the iteration stops earlier once the mean moves by less than
            1e-10 of the median distance to it.

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
    """Return the initial weights: the shares, without points beyond 1000 median distances of the most central point.

    Each step reduces a distant point's pull on the mean by a factor of about the number of clients. From a point at
    1e18 times the usual distance, the iteration would need more steps than it has.
    """
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    usual = distances.quantile(0.5, dim=1)
    center = usual.argmin()
    if not usual[center] > 0:
        return shares
    kept = torch.where(distances[center] <= _OUT_OF_ALL_PROPORTION * usual[center], shares, torch.zeros_like(shares))
    return kept / kept.sum()


def coordinates(gram: Tensor) -> Tensor:
    """Return points with the given inner products, up to rounding: the rows of a Cholesky factor.

    The shortest vectors come first. Each vector's coordinates are then as exact as its own inner products, however
    long other vectors are; a difference of two entries of the Gram matrix would lose these digits.

    Args:
        gram: (clients, clients), <u_i, u_j>, float64.

    Returns:
        (clients, clients), one point per row, float64.
    """
    order = gram.diagonal().sort().indices
    scale = gram.diagonal().clamp(min=0).sqrt()
    inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
    cosines = (gram * inverse[:, None] * inverse)[order][:, order]
    factor = torch.zeros_like(gram)
    for column in range(len(gram)):
        left = cosines[column:, column] - factor[column:, :column] @ factor[column, :column]
        if left[0] > _SPANNED:  # otherwise the vectors before it span this one, and the rest is rounding
            factor[column:, column] = left / left[0].sqrt()
    # Nearly parallel vectors amplify rounding errors, so each row is scaled to its known length.
    factor /= torch.linalg.vector_norm(factor, dim=1, keepdim=True).clamp(min=_SPANNED)
    points = torch.zeros_like(gram)
    points[order] = factor * scale[order][:, None]
    return points


def distances_to_mean(points: Tensor, weights: Tensor) -> Tensor:
    """Return the distances ||x_i - z|| to the weighted mean z = sum_j p_j x_j, (clients,).

    Args:
        points: (clients, dimensions), x.
        weights: (clients,), p.
    """
    distances: Tensor = torch.linalg.vector_norm(points - weights @ points, dim=1)
    return distances
