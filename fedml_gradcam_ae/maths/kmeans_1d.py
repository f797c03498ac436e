"""k-means on a line, exactly.

On a line the clusters of an optimal k-means are runs of the ordered points (Wang and Song 2011, "Ckmeans.1d.dp"), so
that no random start is needed: two clusters are one of n - 1 splits, more of them are a dynamic program.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class TwoMeans(NamedTuple):
    """The best two clusters of each column.

    Attributes:
        high: (points, columns), True in the cluster with the larger center; nowhere where all points are equal.
        low_center: (columns,).
        high_center: (columns,).
        inertia: (columns,), the sum of the squared distances to the own center.
    """

    high: Tensor
    low_center: Tensor
    high_center: Tensor
    inertia: Tensor

    @property
    def minority(self) -> Tensor:
        """(points, columns): the smaller of the two clusters; nobody where they are of one size."""
        above = self.high.sum(0)
        below = len(self.high) - above
        return (self.high & (above < below)) | (~self.high & (below < above) & (above > 0))


def two_means(values: Tensor) -> TwoMeans:
    """2-means of every column by itself.

    With the points of a column in order and their mean at 0, splitting off the first s of n, whose sum is P_s,
    takes P_s^2 n / (s (n - s)) away from the sum of squares; the best split takes most. Equal points are never
    parted: along a run of them this is a convex function of s, largest at one of the run's ends.

    Args:
        values: (points, columns), at least one point.
    """
    count = len(values)
    ordered = values.double().sort(dim=0).values
    if count == 1:
        return TwoMeans(
            torch.zeros_like(values, dtype=torch.bool), ordered[0], ordered[0], torch.zeros_like(ordered[0])
        )
    # Scaled, so that no square overflows; centered, so that none swallows another one's digits.
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
    """The inertia of the best k-means for k = 1 .. `most`.

    D_k(j), that of the j smallest points, is the least of D_(k-1)(i - 1) + c(i, j) over i <= j, where c(i, j) is the
    inertia of the points i .. j as one cluster. Costs k n^2 in time and n^2 in memory.

    Args:
        values: (..., points), of a size whose square does not overflow.
        most: at least 1; with as many clusters as points or more, nothing is left.

    Returns:
        (..., most), float64.
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
    """c(i, j), (..., points, points), infinite for i > j.

    Runs grow by one point at a time, all of one length at once (Welford 1962): equal points cost exactly nothing,
    where the difference of two sums of squares would leave rounding.
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
