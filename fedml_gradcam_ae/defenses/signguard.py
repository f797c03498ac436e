"""SignGuard: uploads of an unusual length, or with an unusual share of positive numbers, are left out.

Source: Xu et al., "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering",
ICDCS 2022, arXiv 2109.05872; the plain variant, without the similarity features of SignGuard-Sim and -Dist. The
published code divides each statistic by its largest value, which blows a single exact zero up to a full unit, and
takes a window of neighboring coordinates; here the shares stay as they are and the coordinates are drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.networks.images import seeded_generator


@register_defense("signguard")
class SignGuard(Defense):
    """Keep who passes both a filter on the updates' lengths and a clustering of their signs, and clip what is kept.

    A length must lie between `lowest` and `highest` times the median. The shares of positive, zero and negative
    numbers among randomly drawn coordinates are clustered by mean shift, and the largest cluster is kept: what is
    further from its center than the bandwidth is not, which costs a third of the clients where nobody attacks. What
    passes both is clipped to the median length and averaged, every client alike.
    """

    class Settings(DefenseSettings):
        """The defaults are the published code's."""

        lowest: float = Field(default=0.1, ge=0, description="the shortest update kept (in median lengths)")
        highest: float = Field(default=3.0, gt=0, description="the longest update kept (in median lengths)")
        coordinates: float = Field(default=0.1, gt=0, le=1, description="the share of coordinates whose signs count")
        seed: int = Field(default=0, ge=0, description="draws the coordinates")

        @model_validator(mode="after")
        def _check_range(self) -> SignGuard.Settings:
            if self.lowest > self.highest:
                raise ValueError(f"lowest must not exceed highest, found lowest {self.lowest}, highest {self.highest}")
            return self

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Filter by length and by signs, clip, average."""
        settings, updates = self.settings, round.updates
        norms = updates.squared_norms.sqrt()
        median = float(np.median(norms.cpu().numpy()))
        usual = (norms >= settings.lowest * median) & (norms <= settings.highest * median)

        columns = draw_columns(
            updates.size, settings.coordinates, seeded_generator(settings.seed, round.number), norms.device
        )
        distances, together = largest_cluster(sign_shares(updates.sample(columns)))
        excluded = [not (a and b) for a, b in zip(usual.tolist(), together, strict=True)]
        scores = [distance if near else float("inf") for distance, near in zip(distances, usual.tolist(), strict=True)]
        answer = {"weights": [0.0] * len(norms)} if all(excluded) else {"model": clipped_mean(round, excluded, median)}
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            scores=scores,
            reasons={
                client: f"its update is {'longer' if norm > median else 'shorter'} than the others': {norm:.3g}, "
                f"median {median:.3g}"
                for client, norm, near in zip(round.client_ids, norms.tolist(), usual.tolist(), strict=True)
                if not near
            },
            **answer,
        )


def draw_columns(size: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Which of `size` coordinates are looked at: `share` of them, at least one, ascending."""
    return torch.randperm(size, generator=generator)[: max(1, int(share * size))].sort().values.to(device)


def sign_shares(values: Tensor) -> Tensor:
    """(clients, 3): the shares of positive, zero and negative numbers.

    Args:
        values: (clients, columns).
    """
    counts = torch.stack([found.sum(1) for found in (values > 0, values == 0, values < 0)], dim=1)
    return counts.double() / values.shape[1]


def largest_cluster(points: Tensor) -> tuple[list[float], list[bool]]:
    """The largest cluster of a mean shift whose bandwidth is the points' mean distance to half of the others.

    Args:
        points: (clients, features).

    Returns:
        How far each point is from the cluster's center (in bandwidths), and whether it belongs to it. A bandwidth
        of 0, half of the points equal, tells nothing: all belong to it.
    """
    from sklearn.cluster import MeanShift, estimate_bandwidth

    features = points.cpu().numpy()
    bandwidth = float(estimate_bandwidth(features, quantile=0.5))
    if not bandwidth > 0:
        return [0.0] * len(features), [True] * len(features)
    found = MeanShift(bandwidth=bandwidth, cluster_all=False).fit(features)
    members = [(found.labels_ == label).sum() for label in range(len(found.cluster_centers_))]
    largest = int(np.argmax(members))
    distances = np.linalg.norm(features - found.cluster_centers_[largest], axis=1) / bandwidth
    return distances.tolist(), (found.labels_ == largest).tolist()
