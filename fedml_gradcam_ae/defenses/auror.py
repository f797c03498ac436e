"""AUROR: leave out the clients that are in the smaller of two clusters in most indicative coordinates.

Source: Shen, Tople and Saxena, "AUROR: Defending Against Poisoning Attacks in Collaborative Deep Learning Systems",
ACSAC 2016, as commonly implemented for model updates: the coordinates of the output layer are the features. Each
coordinate is clustered by itself, as in the paper; other implementations cluster all indicative coordinates at once.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.shared.output_layer import output_updates
from fedml_gradcam_ae.maths.kmeans_1d import two_means


@register_defense("auror")
class Auror(Defense):
    """The average without clients that are in the smaller cluster of more than tau of the indicative coordinates.

    The clients' values of each coordinate of the output layer form two clusters. A coordinate is indicative if, in
    more than half of the first `observe_rounds` rounds, the two cluster centers are at least theta apart. Before the
    last of these rounds all clients are kept. Where both clusters have the same size, neither is suspicious.
    State: one count per coordinate of the output layer.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.auror import Auror
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 0.9, 9.0)],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = Auror(Auror.Settings(observe_rounds=1)).judge(round)
        >>> verdict.scores, verdict.threshold
        ([0.0, 0.0, 0.0, 1.0], 0.5)
        >>> verdict.excluded
        [False, False, False, True]
    """

    class Settings(DefenseSettings):
        """The settings of AUROR; the defaults are those of its common implementations."""

        observe_rounds: int = Field(
            default=10,
            ge=1,
            description="number of rounds, from the first, in which indicative coordinates are searched for (rounds)",
        )
        theta: float = Field(
            default=0.002,
            gt=0,
            description="minimum distance between the two cluster centers of an indicative coordinate",
        )
        tau: float = Field(
            default=0.5,
            ge=0,
            lt=1,
            description="a client is left out if it is in the smaller cluster of more than this share of the "
            "indicative coordinates",
        )

    settings: Settings
    remembers_clients = True

    def __init__(self, settings: Auror.Settings | None = None) -> None:
        super().__init__(settings)
        self._observed = 0
        self._apart = torch.zeros(0, dtype=torch.int64)

    @override
    def judge(self, round: Round) -> Verdict:
        """Count wide coordinates; from the last observed round on, leave out the clients with a score above tau.

        The score is the share of the indicative coordinates in which a client is in the smaller cluster.
        """
        minority, distance = cluster_columns(output_updates(round))
        if self._observed < self.settings.observe_rounds:
            apart = (distance >= self.settings.theta).long().cpu()
            self._apart = apart if self._observed == 0 else self._apart + apart
            self._observed += 1
        indicative = 2 * self._apart.to(minority.device) > self._observed
        shares = suspicious_share(minority, indicative)
        threshold = self.settings.tau if self._observed == self.settings.observe_rounds else None
        flagged = [threshold is not None and share > threshold for share in shares.tolist()]
        return Verdict(
            flagged=flagged,
            excluded=flagged,
            weights=sample_weights(round.samples, flagged),
            scores=shares.tolist(),
            threshold=threshold,
        )

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: the number of observed rounds and the counts per coordinate."""
        return {"observed": self._observed, "apart": self._apart}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._observed, self._apart = int(state["observed"]), state["apart"].clone()


def cluster_columns(updates: Updates) -> tuple[Tensor, Tensor]:
    """Split the clients' values of each coordinate into two clusters by 2-means.

    Args:
        updates: the updates of the output layer.

    Returns:
        Whether a client is in the smaller cluster, (clients, coordinates), bool; and the distance between the two
        centers, (coordinates,), float64.
    """
    clusters = [two_means(block) for block in updates.blocks()]
    minority = torch.cat([found.minority for found in clusters], dim=1)
    return minority, torch.cat([found.high_center - found.low_center for found in clusters])


def suspicious_share(minority: Tensor, indicative: Tensor) -> Tensor:
    """Return the share of the indicative coordinates in which each client is in the smaller cluster.

    Args:
        minority: (clients, coordinates), bool: whether a client is in the smaller cluster.
        indicative: (coordinates,), bool.

    Returns:
        (clients,), float64; 0 where no coordinate is indicative.

    Example:
        >>> minority = torch.tensor([[True, True, False], [False, False, True]])
        >>> suspicious_share(minority, torch.tensor([True, True, False]))
        tensor([1., 0.], dtype=torch.float64)
    """
    return minority[:, indicative].double().sum(1) / max(1, int(indicative.sum()))
