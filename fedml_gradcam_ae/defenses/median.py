"""Coordinate-wise median.

Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, definition 1.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.maths.order_statistics import middle_rows


@register_defense("median")
class Median(Defense):
    """Per coordinate the middle value; for even K the mean of the two middle ones (`torch.median` takes the lower)."""

    Settings = DefenseSettings

    settings: DefenseSettings

    @override
    def judge(self, round: Round) -> Verdict:
        """A model; nobody is left out as a whole."""
        return Verdict(model=round.bounded.updates.columnwise(median))


def median(values: Tensor) -> Tensor:
    """The median of each column.

    Args:
        values: (clients, columns).

    Returns:
        (columns,).
    """
    return middle_rows(values, (len(values) - 1) // 2).mean(dim=0)
