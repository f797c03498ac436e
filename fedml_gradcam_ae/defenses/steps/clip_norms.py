"""Norm clipping: each update is shortened to a given length.

Source: Sun et al., "Can You Really Backdoor Federated Learning?", arXiv 1911.07963, section 5. The paper sets the bound
by hand; the median length as the bound is FLAME's and SignGuard's.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.shared.clipped_mean import clip_factors


class NormClippingSettings(DefenseSettings):
    """The bound M."""

    bound: float | None = Field(
        default=None, gt=0, description="M, the longest update (the unit of weights); null: the round's median length"
    )


def clip_norms(round: Round, settings: NormClippingSettings) -> Round:
    """Return the round with the updates u_i / max(1, ||u_i|| / M).

    Args:
        round: the round.
        settings: M.
    """
    norms = round.updates.squared_norms.sqrt()
    limit = median_length(norms) if settings.bound is None else settings.bound
    return round.mixed(clip_factors(norms, limit).diag())


def median_length(norms: Tensor) -> float:
    """Return the median length, the mean of the two middle ones where their number is even.

    Args:
        norms: (clients,).

    Example:
        >>> import torch
        >>> median_length(torch.tensor([1.0, 9.0, 2.0, 4.0]))
        3.0
    """
    return float(np.median(norms.cpu().numpy()))
