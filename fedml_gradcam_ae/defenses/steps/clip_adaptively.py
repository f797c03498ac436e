"""Adaptive robust clipping (ARC): the longest updates are shortened to the length of the longest one that is not.

Source: Allouah et al., "Adaptive Gradient Clipping for Robust Federated Learning", ICLR 2025, arXiv 2405.14432,
algorithm 2. ByzFL's ARC is the same.
"""

from __future__ import annotations

from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AssumesMalicious
from fedml_gradcam_ae.defenses.shared.clipped_mean import clip_factors


def clip_adaptively(round: Round, settings: AssumesMalicious) -> Round:
    """Return the round in which the k longest updates are scaled to the length of the (k + 1)-th longest.

    Args:
        round: the round.
        settings: f.

    Raises:
        TooFewUploads: if there are fewer uploads than `settings.needed`.
    """
    norms = round.updates.squared_norms.sqrt()
    limit = adaptive_limit(norms, settings.faced(len(norms), len(round.rejected)))
    return round.mixed(clip_factors(norms, limit).diag())


def adaptive_limit(norms: Tensor, malicious: int) -> float:
    """Return the (k + 1)-th largest length, with k = floor(2 f / K (K - f)).

    Args:
        norms: (clients,), the lengths.
        malicious: f, below K / 2, so that k is below K.

    Example:
        >>> import torch
        >>> adaptive_limit(torch.tensor([3.0, 9.0, 1.0, 2.0, 4.0]), malicious=1)  # k = 1
        4.0
    """
    clipped = 2 * malicious * (len(norms) - malicious) // len(norms)
    return float(norms.sort(descending=True).values[clipped])
