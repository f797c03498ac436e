"""Clustering by cosine similarity: two groups of clients, of which the larger is kept.

Source: Sattler et al., "On the Byzantine Robustness of Clustered Federated Learning", ICASSP 2020. The method is that
of "Clustered Federated Learning", arXiv 1910.01991, as commonly implemented: the bipartition whose largest similarity
across is smallest. Single linkage finds that one; the authors' published code takes complete linkage. The clients are
split where sqrt((1 - a) / 2) > gamma, with a the largest similarity across, or a < 1 - 2 gamma^2. Here this number is
the setting; its default is this project's own.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.shared.two_clusters import smaller_cluster
from fedml_gradcam_ae.maths.cosine import cosine_matrix


@register_defense("cosine_clustering")
class CosineClustering(Defense):
    """The average, weighted by samples, of the larger of two clusters of updates by cosine similarity.

    Where an update of one cluster is as similar to one of the other as the threshold, all clients are kept.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.cosine_clustering import CosineClustering
        >>> updates = ([1.0, 0.9], [1.0, 1.1], [0.5, 0.5], [-1.0, 1.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([update])} for update in updates],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = CosineClustering(CosineClustering.Settings(threshold=0.1)).judge(round)
        >>> verdict.excluded, [f"{score:.2f}" for score in verdict.scores]
        ([False, False, False, True], ['0.00', '0.00', '0.00', '1.00'])
    """

    class Settings(DefenseSettings):
        """The linkage and the threshold."""

        linkage: Literal["complete", "single"] = Field(
            default="complete", description="`complete`, as the authors' code; `single`, the paper's bipartition"
        )
        threshold: float = Field(
            default=0.0,
            ge=-1,
            le=1,
            description="the clients are split only if the largest cosine between the two clusters is below this",
        )

    settings: Settings

    @override
    def protects(self, clients: int) -> bool:
        """Return False: an upload of any length at an acute angle to some other one is averaged with the others."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Keep the larger cluster, or all clients; the score is the mean cosine distance to the kept clients."""
        similarities = cosine_matrix(round.updates.gram)
        out = smaller_cluster(1 - similarities, self.settings.linkage)
        if not largest_across(similarities, out) < self.settings.threshold:
            out = [False] * len(out)
        kept = [position for position, excluded in enumerate(out) if not excluded]
        return Verdict(
            flagged=out,
            excluded=out,
            weights=sample_weights(round.samples, out),
            scores=(1 - similarities)[:, kept].mean(dim=1).tolist(),
        )


def largest_across(similarities: Tensor, out: list[bool]) -> float:
    """Return the largest similarity between a client of one cluster and one of the other; 1 for a single cluster.

    Args:
        similarities: (clients, clients).
        out: for each client, whether it is in the second cluster.

    Example:
        >>> import torch
        >>> similarities = torch.tensor([[1.0, 0.75, 0.25], [0.75, 1.0, -0.5], [0.25, -0.5, 1.0]])
        >>> largest_across(similarities, [False, False, True])
        0.25
    """
    first = [position for position, other in enumerate(out) if not other]
    second = [position for position, other in enumerate(out) if other]
    return float(similarities[first][:, second].amax()) if first and second else 1.0
