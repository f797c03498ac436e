"""AUROR: whoever stands in the smaller of two groups in most coordinates that fall into two is left out.

Source: Shen, Tople and Saxena, "AUROR: Defending Against Poisoning Attacks in Collaborative Deep Learning Systems",
ACSAC 2016, as commonly implemented for model updates: the coordinates of the output layer are the features. Each
coordinate is clustered by itself, as in the paper; others cluster all indicative coordinates at once.
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
    """Leave out who is in the smaller cluster of more than half of the output layer's indicative coordinates.

    Two clusters are made of the clients' values of each coordinate. In the first rounds everybody is kept, while the
    server counts in how many of them a coordinate's two centers are at least theta apart: in more than half, and it
    is indicative from the last of these rounds on. Where both clusters are of one size neither is suspicious.
    State: one count per coordinate of the output layer.
    """

    class Settings(DefenseSettings):
        """The defaults are those of its common implementations."""

        observe_rounds: int = Field(
            default=10, ge=1, description="rounds in which indicative coordinates are looked for (rounds)"
        )
        theta: float = Field(
            default=0.002, gt=0, description="how far apart the centers of an indicative coordinate are, at least"
        )
        tau: float = Field(
            default=0.5,
            ge=0,
            lt=1,
            description="the share of indicative coordinates above which a suspicious client is malicious",
        )

    settings: Settings

    def __init__(self, settings: Auror.Settings) -> None:
        super().__init__(settings)
        self._observed = 0
        self._apart = torch.zeros(0, dtype=torch.int64)

    @override
    def judge(self, round: Round) -> Verdict:
        """Observe, and from the last observed round on leave out who is suspicious too often."""
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
        """What must outlive the process."""
        return {"observed": self._observed, "apart": self._apart}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._observed, self._apart = int(state["observed"]), state["apart"].clone()


def cluster_columns(updates: Updates) -> tuple[Tensor, Tensor]:
    """2-means of each coordinate: who is in the smaller cluster, and how far apart the two centers are.

    Returns:
        (clients, coordinates), bool, and (coordinates,), float64.
    """
    clusters = [two_means(block) for block in updates.blocks()]
    minority = torch.cat([found.minority for found in clusters], dim=1)
    return minority, torch.cat([found.high_center - found.low_center for found in clusters])


def suspicious_share(minority: Tensor, indicative: Tensor) -> Tensor:
    """In which share of the indicative coordinates a client is in the smaller cluster, (clients,); 0 without any.

    Args:
        minority: (clients, coordinates), bool.
        indicative: (coordinates,), bool.
    """
    return minority[:, indicative].double().sum(1) / max(1, int(indicative.sum()))
