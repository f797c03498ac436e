"""Coordinate-wise median.

Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, definition 1.
"""

from __future__ import annotations

from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("median")
class Median(Defense):
    """The middle value of each coordinate; for an even number of clients K, the mean of the two middle values.

    `torch.median` takes the lower of the two instead.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.median import Median
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> Median(Median.Settings()).judge(round).model
        {'weight': tensor([[1.1000]])}
    """

    Settings = DefenseSettings

    settings: DefenseSettings
    not_composed = "it leaves out no client"

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the median model; no client is left out as a whole."""
        return Verdict(model=round.bounded.updates.columnwise(median))
