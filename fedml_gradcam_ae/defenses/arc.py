"""Adaptive robust clipping (ARC) in front of another rule; `steps.clip_adaptively` has the source and the formula."""

from __future__ import annotations

from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.defenses.shared.in_front import InFront, InFrontSettings, Rule
from fedml_gradcam_ae.defenses.steps.clip_adaptively import clip_adaptively


@register_defense("arc")
class AdaptiveRobustClipping(InFront):
    """Another rule on clipped updates: the k longest updates are scaled to the length of the (k + 1)-th longest.

    k is floor(2 f / K (K - f)), nearly twice the number f of clients that are assumed malicious. BatchNorm's statistics
    are pulled toward the global model by the same factor.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.arc import AdaptiveRobustClipping
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.3, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> rule = AdaptiveRobustClipping(AdaptiveRobustClipping.Settings(malicious=1, rule_params={"beta": 0.0}))
        >>> rule.judge(round).model  # the mean of 1.0, 1.1, 1.2, 1.3 and 1.3
        {'weight': tensor([[1.1800]])}
    """

    class Settings(InFrontSettings):
        """The rule that the clipped updates go to, one of those that judge by the updates alone, and f."""

        rule: Rule = Field(default="trimmed_mean", description="the rule that the clipped updates go to")

    @override
    def protects(self, clients: int) -> bool:
        """Return whether it clips the one upload, whatever the other rule does, or the other rule withstands it."""
        return Defense.protects(self, clients) or self.rule.protects(clients)

    @override
    def transformed(self, round: Round) -> Round:
        """Return the round of clipped updates."""
        return clip_adaptively(round, self.settings)
