"""SignGuard: leave out updates of unusual length or with unusual shares of signs.

Source: Xu et al., "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering",
ICDCS 2022, arXiv 2109.05872; the plain variant, without the similarity features of SignGuard-Sim and -Dist. The
published code divides each statistic by its largest value, which turns a single exact zero into a full unit, and takes
a window of neighboring coordinates. Here the shares are not scaled and the coordinates are drawn at random.
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
from fedml_gradcam_ae.maths.order_statistics import median
from fedml_gradcam_ae.networks.images import seeded_generator


@register_defense("signguard")
class SignGuard(Defense):
    """The clipped mean of the clients that pass a filter on lengths and a clustering of signs.

    The length of an update must be between `lowest` and `highest` times the median length. The shares of positive, zero
    and negative numbers among randomly drawn coordinates are clustered by mean shift, and the largest cluster is kept.
    Clients further from its center than the bandwidth are left out, which is a third of the clients where there is no
    attack. The updates that pass both filters are clipped to the median length and averaged without weights.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.signguard import SignGuard
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 0.9, 9.0)],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = SignGuard(SignGuard.Settings()).judge(round)
        >>> verdict.reasons
        {4: "its update is longer than the others': 9, median 1.05"}
        >>> verdict.model  # the mean of 1.0, 1.05 (clipped) and 0.9
        {'weight': tensor([[0.9833]])}
    """

    class Settings(DefenseSettings):
        """The settings of SignGuard; the defaults are those of the published code."""

        lowest: float = Field(default=0.1, ge=0, description="minimum length of a kept update (in median lengths)")
        highest: float = Field(default=3.0, gt=0, description="maximum length of a kept update (in median lengths)")
        coordinates: float = Field(
            default=0.1, gt=0, le=1, description="share of the coordinates whose signs are clustered"
        )
        seed: int = Field(default=0, ge=0, description="seed of the sampled coordinates")

        @model_validator(mode="after")
        def _check_range(self) -> SignGuard.Settings:
            if self.lowest > self.highest:
                raise ValueError(f"lowest must not exceed highest, found lowest {self.lowest}, highest {self.highest}")
            return self

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Filter clients by length and by signs, and clip and average the kept updates.

        The score is the distance to the cluster's center in bandwidths, infinite for an update of unusual length.
        """
        settings, updates = self.settings, round.updates
        norms = updates.squared_norms.sqrt()
        limit = float(median(norms))
        usual = (norms >= settings.lowest * limit) & (norms <= settings.highest * limit)

        columns = draw_columns(
            updates.size, settings.coordinates, seeded_generator(settings.seed, round.number), norms.device
        )
        distances, together = largest_cluster(sign_shares(updates.sample(columns)))
        excluded = [not (a and b) for a, b in zip(usual.tolist(), together, strict=True)]
        scores = [distance if near else float("inf") for distance, near in zip(distances, usual.tolist(), strict=True)]
        answer = {"weights": [0.0] * len(norms)} if all(excluded) else {"model": clipped_mean(round, excluded, limit)}
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            scores=scores,
            reasons={
                client: f"its update is {'longer' if norm > limit else 'shorter'} than the others': {norm:.3g}, "
                f"median {limit:.3g}"
                for client, norm, near in zip(round.client_ids, norms.tolist(), usual.tolist(), strict=True)
                if not near
            },
            **answer,
        )


def draw_columns(size: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return a random share of the coordinates, at least one, in ascending order.

    Args:
        size: the number of coordinates d.
        share: the share that is drawn.
        generator: draws the coordinates, on the CPU.
        device: the device of the result.

    Returns:
        (columns,), int64.
    """
    return torch.randperm(size, generator=generator)[: max(1, int(share * size))].sort().values.to(device)


def sign_shares(values: Tensor) -> Tensor:
    """Return the shares of positive, zero and negative numbers.

    Args:
        values: (clients, columns).

    Returns:
        (clients, 3), float64.

    Example:
        >>> sign_shares(torch.tensor([[1.0, 2.0, 0.0, -1.0]]))
        tensor([[0.5000, 0.2500, 0.2500]], dtype=torch.float64)
    """
    counts = torch.stack([found.sum(1) for found in (values > 0, values == 0, values < 0)], dim=1)
    return counts.double() / values.shape[1]


def largest_cluster(points: Tensor) -> tuple[list[float], list[bool]]:
    """Return the largest cluster of a mean shift, with scikit-learn's bandwidth for the quantile 0.5.

    This bandwidth is the mean, over the points, of the distance within which half of the points are.

    Args:
        points: (clients, features).

    Returns:
        Each point's distance to the cluster's center in bandwidths, and whether it belongs to the cluster. Where the
        bandwidth is 0, since half of the points are equal, all points belong to it.
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
