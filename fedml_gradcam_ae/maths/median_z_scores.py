"""The distance from the median in standard deviations, by which rules tell usual numbers from unusual ones."""

from __future__ import annotations

import torch
from torch import Tensor

_EQUAL = 1e-12  # numbers whose standard deviation is a smaller fraction of the largest of them count as equal


def median_z_scores(values: Tensor) -> Tensor:
    """Return |x_i - median| / standard deviation; 0 where all numbers are equal.

    Source: Xu et al. call it the MZ-score, in LASA (WACV 2025) and AlignIns (CVPR 2025). The median of an even number
    of values is the mean of the two middle ones; the standard deviation is that of the population. Two different
    numbers always have the score 1, which says nothing of either, so fewer than three have the score 0.

    Args:
        values: (clients, ...), finite.

    Returns:
        The same shape, float64: the scores among the numbers of one column.

    Example:
        >>> median_z_scores(torch.tensor([1.0, 2.0, 3.0, 10.0])).tolist()  # median 2.5, standard deviation 3.54
        [0.4242640687119285, 0.1414213562373095, 0.1414213562373095, 2.1213203435596424]
    """
    values = values.double()
    if len(values) < 3:
        return torch.zeros_like(values)
    ordered = values.sort(dim=0).values
    median = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    spread = values.std(dim=0, correction=0)
    usable = spread > _EQUAL * values.abs().amax(dim=0)
    return torch.where(usable, (values - median).abs() / torch.where(usable, spread, 1.0), 0.0)
