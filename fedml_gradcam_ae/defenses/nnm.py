"""Nearest-neighbor mixing (NNM) in front of another rule; `steps.mix_with_nearest` has the source and the formula."""

from __future__ import annotations

from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.defenses.shared.in_front import InFront, InFrontSettings, Rule
from fedml_gradcam_ae.defenses.steps.mix_with_nearest import mix_with_nearest


@register_defense("nnm")
class NearestNeighborMixing(InFront):
    """Another rule on mixed updates: each update u_i becomes the mean of the K - f updates nearest to it, u_i included.

    Mixing is linear, so neither the mixed updates nor their distances are ever computed from the parameters: the other
    rule reads them through `Round.updates`.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.nnm import NearestNeighborMixing
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.3, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> rule = NearestNeighborMixing(NearestNeighborMixing.Settings(malicious=1, rule="median"))
        >>> rule.judge(round).model  # mixed, the first four updates are all 1.15
        {'weight': tensor([[1.1500]])}
    """

    class Settings(InFrontSettings):
        """The rule that the mixed updates go to, one of those that judge by the updates alone, and f."""

        rule: Rule = Field(default="trimmed_mean", description="the rule that the mixed updates go to")

    @override
    def transformed(self, round: Round) -> Round:
        """Return the round of mixed updates."""
        return mix_with_nearest(round, self.settings)
