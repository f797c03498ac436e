"""Norm clipping: each update is shortened to a given length.

Source: Sun et al., "Can You Really Backdoor Federated Learning?", arXiv 1911.07963, section 5. The paper sets the bound
by hand; the median length as the bound is FLAME's and SignGuard's.
"""

from __future__ import annotations

from pydantic import Field

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.shared.clipped_mean import clip_factors
from fedml_gradcam_ae.maths.order_statistics import median


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
    limit = float(median(norms)) if settings.bound is None else settings.bound
    return round.mixed(clip_factors(norms, limit).diag())
