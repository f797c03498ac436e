"""The mean of updates of which none is longer than a limit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round, sample_weights


def clip_factors(norms: Tensor, limit: float) -> Tensor:
    """min(1, limit / ||u_i||), (clients,): what an update is to be multiplied by; 1 for one that is zero."""
    return torch.where(norms > limit, limit / norms, torch.ones_like(norms))


def clipped_mean(round: Round, excluded: Sequence[bool], limit: float) -> dict[str, Tensor]:
    """The model w_g + mean_i u_i min(1, limit / ||u_i||) over the clients that are kept, at least one.

    All of them count alike, as in SignGuard and FLAME: a claimed number of samples is not to be trusted. BatchNorm's
    statistics are averaged by samples.
    """
    norms = round.updates.squared_norms.sqrt()
    kept = torch.tensor([not out for out in excluded], dtype=norms.dtype, device=norms.device)
    coefficients = kept * clip_factors(norms, limit) / kept.sum()
    weights = torch.tensor(sample_weights(round.samples, excluded), dtype=norms.dtype, device=norms.device)
    return round.bounded.updates.combine(coefficients, weights)
