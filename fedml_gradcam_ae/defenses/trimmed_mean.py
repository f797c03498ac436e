"""Trimmed mean: per coordinate, the mean without the b smallest and the b largest values.

Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, definition 2.
The trimmed means of ByzFL and scipy are the same. FedML's rule of this name drops whole clients by their sample count
instead.
"""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.maths.order_statistics import middle_rows


@register_defense("trimmed_mean")
class TrimmedMean(Defense):
    """The unweighted mean per coordinate, without the b smallest and the b largest values.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.trimmed_mean import TrimmedMean
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.3, 1.5, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> TrimmedMean(TrimmedMean.Settings(beta=0.2)).judge(round).model  # the mean of 1.1, 1.3 and 1.5
        {'weight': tensor([[1.3000]])}
    """

    class Settings(DefenseSettings):
        """The share of the clients that is cut off at either end."""

        beta: float = Field(
            default=0.2,
            ge=0,
            lt=0.5,
            description="share of the clients that are trimmed at either end, b = floor(beta * K)",
        )

        def cut(self, clients: int) -> int:
            """Return b, the number of values that are cut off at either end.

            Args:
                clients: K.
            """
            return math.floor(self.beta * clients + 1e-9)

    settings: Settings
    not_composed = "it leaves out no client"

    @override
    def protects(self, clients: int) -> bool:
        """Return whether at least one value is cut off at either end."""
        return super().protects(clients) and self.settings.cut(clients) >= 1

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the trimmed mean model; no client is left out as a whole."""
        cut = self.settings.cut(len(round.uploads))
        model = round.bounded.updates.columnwise(lambda values: trimmed_mean(values, cut))
        return Verdict(model=model)


def trimmed_mean(values: Tensor, cut: int) -> Tensor:
    """Return the mean of each column without its `cut` smallest and `cut` largest values.

    Args:
        values: (clients, columns).
        cut: b, fewer than half of the clients.

    Returns:
        (columns,).
    """
    return middle_rows(values, cut).mean(dim=0)
