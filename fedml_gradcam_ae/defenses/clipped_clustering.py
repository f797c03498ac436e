"""Clipped clustering: updates are clipped to the median of all lengths so far, and the larger of two clusters is kept.

Source: Li, Ngai and Voigt, "An Experimental Study of Byzantine-Robust Aggregation Schemes in Federated Learning", IEEE
Transactions on Big Data, 2023. The details are those of Blades, the authors' code: average linkage on 1 - cosine, which
clipping does not change, an unweighted mean, and a cap of 1e5 on the length.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.defenses.shared.two_clusters import smaller_cluster
from fedml_gradcam_ae.maths.cosine import cosine_matrix
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("clipped_clustering")
class ClippedClustering(Defense):
    """The mean of the larger of two clusters of updates, each clipped to the median of all lengths ever seen.

    There are always two clusters, so of two or more clients at least one is left out, whether there are attackers or
    not. State: the length of every update so far.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.clipped_clustering import ClippedClustering
        >>> updates = ([3.0, 4.0], [4.0, 3.0], [6.0, 8.0], [-4.0, 3.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([update])} for update in updates],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = ClippedClustering().judge(round)
        >>> verdict.excluded
        [False, False, False, True]
        >>> verdict.model  # the mean of (3, 4), (4, 3) and (3, 4)
        {'weight': tensor([[3.3333, 3.6667]])}
    """

    class Settings(DefenseSettings):
        """The largest length to clip to."""

        largest: float = Field(default=1e5, gt=0, description="the length to clip to is never above this")

    settings: Settings

    def __init__(self, settings: ClippedClustering.Settings | None = None) -> None:
        super().__init__(settings)
        self._norms = torch.zeros(0, dtype=torch.float64)

    @override
    def judge(self, round: Round) -> Verdict:
        """Cluster, clip and average; the score is the mean cosine distance to the kept clients."""
        updates = round.updates
        self._norms = torch.cat([self._norms, updates.squared_norms.sqrt().cpu()])
        distances = 1 - cosine_matrix(updates.gram)
        out = smaller_cluster(distances, "average")
        kept = [position for position, excluded in enumerate(out) if not excluded]
        return Verdict(
            flagged=out,
            excluded=out,
            model=clipped_mean(round, out, min(float(median(self._norms)), self.settings.largest)),
            scores=distances[:, kept].mean(dim=1).tolist(),
        )

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: all lengths so far."""
        return {"norms": self._norms}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._norms = state["norms"]
