"""Nearest-neighbor mixing (NNM): each update becomes the mean of the updates nearest to it.

Source: Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
algorithm 1. ByzFL's NNM is the same, with ties in no particular order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AssumesMalicious


def mix_with_nearest(round: Round, settings: AssumesMalicious) -> Round:
    """Return the round in which each update u_i is the mean of the K - f updates nearest to it, u_i included.

    Args:
        round: the round.
        settings: f.

    Raises:
        TooFewUploads: if there are fewer uploads than `settings.needed`.
    """
    malicious = settings.faced(len(round.uploads), len(round.rejected))
    return round.mixed(mixing_matrix(round.updates.squared_distances, malicious))


def mixing_matrix(squared_distances: Tensor, malicious: int) -> Tensor:
    """Return M with M_ij = 1 / (K - f) if j is one of the K - f clients nearest to i, i itself included, and else 0.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal, float64.
        malicious: f, below K.

    Returns:
        (clients, clients), float64, rows that sum to 1; at a tie the first clients count as nearer.

    Example:
        >>> positions = torch.tensor([1.0, 2.0, 9.0])
        >>> mixing_matrix((positions - positions[:, None]).square(), malicious=1)
        tensor([[0.5000, 0.5000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    kept = len(squared_distances) - malicious
    nearest = squared_distances.clone().fill_diagonal_(-1).sort(dim=1, stable=True).indices[:, :kept]
    return torch.zeros_like(squared_distances).scatter_(1, nearest, 1 / kept)
