"""The mean of updates that are clipped to a length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round, sample_weights


def clip_factors(norms: Tensor, limit: float) -> Tensor:
    """Return the factors min(1, limit / ||u_i||) that clip updates to a length.

    Args:
        norms: (clients,), the lengths ||u_i||.
        limit: the length to clip to.

    Returns:
        (clients,), 1 for an update that is zero.

    Example:
        >>> clip_factors(torch.tensor([0.0, 1.0, 4.0]), 2.0)
        tensor([1.0000, 1.0000, 0.5000])
    """
    return torch.where(norms > limit, limit / norms, torch.ones_like(norms))


def clipped_mean(round: Round, excluded: Sequence[bool], limit: float) -> dict[str, Tensor]:
    """Return the model w_g + mean_i u_i min(1, limit / ||u_i||) over the clients that are kept.

    The mean is unweighted, as in SignGuard and FLAME, since claimed sample counts are untrusted. BatchNorm's running
    statistics are averaged with the samples as weights.

    Args:
        round: the round to aggregate.
        excluded: for each client, whether it is left out; at least one is kept.
        limit: the length to clip to.
    """
    norms = round.updates.squared_norms.sqrt()
    kept = torch.tensor([not out for out in excluded], dtype=norms.dtype, device=norms.device)
    coefficients = kept * clip_factors(norms, limit) / kept.sum()
    weights = torch.tensor(sample_weights(round.samples, excluded), dtype=norms.dtype, device=norms.device)
    return round.bounded.updates.combine(coefficients, weights)
