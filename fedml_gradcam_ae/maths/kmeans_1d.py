"""Exact k-means for numbers on a line.

On a line the clusters of an optimal k-means are runs of the ordered points (Wang and Song 2011, "Ckmeans.1d.dp"). So no
random start is needed: two clusters are one of n - 1 splits, and more clusters are found by dynamic programming.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class TwoMeans(NamedTuple):
    """The best two clusters of each column.

    Attributes:
        high: (points, columns), True in the cluster with the larger center; all False where all points are equal.
        low_center: (columns,), the center of the lower cluster.
        high_center: (columns,), the center of the upper cluster.
        inertia: (columns,), the sum of the points' squared distances to their centers.
    """

    high: Tensor
    low_center: Tensor
    high_center: Tensor
    inertia: Tensor

    @property
    def minority(self) -> Tensor:
        """Mask of the points in the smaller cluster, (points, columns); all False where both have the same size."""
        above = self.high.sum(0)
        below = len(self.high) - above
        return (self.high & (above < below)) | (~self.high & (below < above) & (above > 0))


def two_means(values: Tensor) -> TwoMeans:
    """Return the best two clusters of every column by itself.

    Take the points of a column in order, with their mean at 0. To split off the first s of n points, whose sum is P_s,
    reduces the sum of squares by P_s^2 n / (s (n - s)); the best split has the largest reduction. A split never
    separates equal points: along a run of them this is a convex function of s, which is largest at one of the run's
    ends.

    Args:
        values: (points, columns), at least one point.

    Example:
        >>> found = two_means(torch.tensor([[0.0], [1.0], [8.0]]))
        >>> found.high[:, 0].tolist(), round(float(found.low_center), 6), round(float(found.high_center), 6)
        ([False, False, True], 0.5, 8.0)
    """
    count = len(values)
    ordered = values.double().sort(dim=0).values
    if count == 1:
        return TwoMeans(
            torch.zeros_like(values, dtype=torch.bool), ordered[0], ordered[0], torch.zeros_like(ordered[0])
        )
    # Scaled, so that no square overflows. Centered, so that large values do not cost the differences their digits.
    scale = ordered.abs().amax(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    middle = (ordered / scale).mean(0)
    centered = ordered / scale - middle
    sizes = torch.arange(1, count, dtype=torch.float64, device=values.device)[:, None]
    sums = centered.cumsum(0)[:-1]
    gains = sums.square() * count / (sizes * (count - sizes))
    gain, split = gains.max(dim=0)
    boundary = ordered.gather(0, split[None])
    low_size, low_sum = (split + 1).double(), sums.gather(0, split[None])[0]
    return TwoMeans(
        high=values.double() > boundary,
        low_center=(middle + low_sum / low_size) * scale,
        high_center=(middle - low_sum / (count - low_size)) * scale,
        inertia=(centered.square().sum(0) - gain).clamp(min=0) * scale.square(),
    )


def least_inertias(values: Tensor, most: int) -> Tensor:
    """Return the inertia of the best k-means for each k from 1 to `most`.

    D_k(j), the least inertia of the j smallest points in k clusters, is the minimum of D_(k-1)(i - 1) + c(i, j) over
    i <= j, where c(i, j) is the inertia of the points i .. j as one cluster. The cost is k n^2 in time and n^2 in
    memory.

    Args:
        values: (..., points), small enough that their squares do not overflow.
        most: at least 1. With as many clusters as points or more, the inertia is 0.

    Returns:
        (..., most), float64.

    Example:
        >>> least_inertias(torch.tensor([0.0, 2.0, 10.0, 12.0]), most=2)
        tensor([104.,   4.], dtype=torch.float64)
    """
    costs = _run_costs(values.double().sort(dim=-1).values)
    best = costs[..., 0, :]
    found = [best[..., -1]]
    for _ in range(most - 1):
        before = torch.cat([torch.full_like(best[..., :1], math.inf), best[..., :-1]], dim=-1)  # D_k(i - 1)
        best = torch.minimum(best, (before[..., None] + costs).amin(-2))
        found.append(best[..., -1])
    return torch.stack(found, dim=-1)


def _run_costs(ordered: Tensor) -> Tensor:
    """Return the costs c(i, j), (..., points, points), infinite for i > j.

    Runs grow by one point at a time, all runs of one length at once (Welford 1962). So equal points cost exactly 0,
    where the difference of two sums of squares would leave a rounding error.
    """
    count = ordered.shape[-1]
    costs = ordered.new_full((*ordered.shape, count), math.inf)
    means, cost = ordered, torch.zeros_like(ordered)
    costs.diagonal(0, -2, -1).copy_(cost)
    for length in range(2, count + 1):
        step = ordered[..., length - 1 :] - means[..., :-1]
        means = means[..., :-1] + step / length
        cost = cost[..., :-1] + step.square() * (length - 1) / length
        costs.diagonal(length - 1, -2, -1).copy_(cost)
    return costs
