"""Norm clipping: the mean of updates that are shortened to a given length; `steps.clip_norms` has the source."""

from __future__ import annotations

import torch
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.defenses.steps.clip_norms import NormClippingSettings, clip_norms


@register_defense("norm_clipping")
class NormClipping(Defense):
    """The mean of the clipped updates u_i / max(1, ||u_i|| / M), weighted by samples as in the paper.

    No client is left out. BatchNorm's statistics are pulled toward the global model by the same factor.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.norm_clipping import NormClipping
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.2, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = NormClipping(NormClipping.Settings(bound=2.0)).judge(round)
        >>> verdict.model  # the mean of 1.0, 1.2 and 2.0
        {'weight': tensor([[1.4000]])}
        >>> [f"{score:.1f}" for score in verdict.scores]
        ['1.0', '1.2', '9.0']
    """

    Settings: type[NormClippingSettings] = NormClippingSettings

    settings: NormClippingSettings
    not_composed = "it leaves out no client"

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the mean of the clipped updates; the score is an update's length."""
        weights = torch.tensor(sample_weights(round.samples, [False] * len(round.uploads)), dtype=torch.float64)
        updates = round.updates
        clipped = clip_norms(round, self.settings).bounded.updates
        return Verdict(
            model=clipped.combine(weights.to(updates.gram.device)),
            scores=updates.squared_norms.sqrt().tolist(),
        )
