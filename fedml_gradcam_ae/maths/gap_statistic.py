"""The number of clusters in a set of numbers, by the gap statistic.

Source: Tibshirani, Walther and Hastie, "Estimating the number of clusters in a data set via the gap statistic",
JRSS B 2001, in the form of FLDetector (arXiv 2207.09209): the numbers are scaled to [0, 1], and the reference sets are
uniform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedml_gradcam_ae.maths.kmeans_1d import least_inertias

_ROUNDING = 1e-9  # numbers with a smaller spread, relative to the largest of them, count as equal
_SMALLEST = 1e-30  # replaces an inertia of 0, which has no logarithm


def count_clusters(values: Tensor, most: int, references: int, generator: torch.Generator) -> int:
    """Return the smallest k with Gap(k) >= Gap(k + 1) - s_(k+1), where Gap(k) = mean_b log W_k^b - log W_k.

    W_k is the inertia of k-means (exact here), and W_k^b that of the b-th reference set of as many uniform numbers;
    s_k = sd_b(log W_k^b) sqrt(1 + 1/B). FLDetector's published code takes the logarithm of the mean in place of the
    mean of the logarithms.

    Args:
        values: (points,), finite.
        most: the largest k to try. It is limited to the number of points less one, since as many clusters as points
            always fit.
        references: B, the number of reference sets.
        generator: the only source of randomness.

    Returns:
        k; `most` if no k fulfills the condition; 1 if there are fewer than three points or all are equal.

    Example:
        >>> values = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])
        >>> count_clusters(values, most=4, references=20, generator=torch.Generator().manual_seed(0))
        2
    """
    values = values.double().cpu()
    spread = values.max() - values.min()
    most = min(most, len(values) - 1)
    if most < 2 or spread <= _ROUNDING * values.abs().max():
        return 1
    uniform = torch.rand(references, len(values), generator=generator, dtype=torch.float64)
    sets = torch.cat([((values - values.min()) / spread)[None], uniform])
    logs = least_inertias(sets, most).clamp(min=_SMALLEST).log()
    gaps = logs[1:].mean(0) - logs[0]
    deviations = logs[1:].std(0, correction=0) * (1 + 1 / references) ** 0.5
    enough = gaps[:-1] >= gaps[1:] - deviations[1:]
    return int(enough.nonzero()[0]) + 1 if enough.any() else most
