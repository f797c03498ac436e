"""Krum's score: how far an upload lies from its nearest neighbors.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
Variants in circulation count K - f - 1 neighbors, or add up distances or their fourth powers instead of squares.
"""

from __future__ import annotations

import math

from torch import Tensor


def krum_scores(squared_distances: Tensor, malicious: int) -> Tensor:
    """s_i, the sum of the K - f - 2 smallest D_ij over the others j; the lowest score is Krum's choice.

    Args:
        squared_distances: (clients, clients), D_ij = ||u_i - u_j||^2.
        malicious: f, how many of them are assumed malicious.

    Returns:
        (clients,); where K - f - 2 is below one, the nearest neighbor alone counts.
    """
    clients = len(squared_distances)
    neighbors = min(max(1, clients - malicious - 2), clients - 1)
    others = squared_distances.clone().fill_diagonal_(math.inf)
    return others.topk(neighbors, dim=1, largest=False).values.sum(dim=1)
