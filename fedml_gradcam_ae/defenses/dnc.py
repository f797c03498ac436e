"""Divide and conquer (DnC): leave out the clients that stand out along the direction of largest variance.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, algorithm 2.
The paper has no score over the repetitions; here it is the largest share of the variance that a client ever had.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious


@register_defense("dnc")
class DnC(Defense):
    """Several times, on some coordinates: drop the c f clients furthest along the top singular vector; keep who stays.

    Whoever is kept every time is averaged, unweighted as in the paper.
    """

    class Settings(AssumesMalicious):
        """The paper's values, but for f."""

        repetitions: int = Field(default=5, ge=1, description="how many times coordinates are drawn")
        coordinates: int = Field(default=10_000, ge=1, description="how many coordinates are drawn each time")
        filter_fraction: float = Field(
            default=1.5, gt=0, description="c: each time the floor(c * f) clients that stand out most are dropped"
        )
        seed: int = Field(default=0, ge=0, description="draws the coordinates")

        @override
        def needed(self, malicious: int) -> int:
            """2f + 1, and more than are dropped each time."""
            return max(super().needed(malicious), self.dropped(malicious) + 1)

        def dropped(self, malicious: int) -> int:
            """floor(c f)."""
            return int(self.filter_fraction * malicious)

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Equal weights for those kept in every repetition; nobody may be left, then the global model stays.

        The score is the largest share of the variance that a client had in any repetition.
        """
        settings, clients = self.settings, len(round.uploads)
        dropped = settings.dropped(settings.faced(clients, len(round.rejected)))
        random = np.random.default_rng((settings.seed, round.number))
        size = round.updates.size
        scores = torch.zeros(clients, dtype=torch.float64)
        out = torch.zeros(clients, dtype=torch.bool)
        for _ in range(settings.repetitions):
            columns = np.sort(random.choice(size, min(settings.coordinates, size), replace=False, shuffle=False))
            outlying = outlier_scores(round.updates.sample(torch.from_numpy(columns)).cpu())
            out[outlying.sort(descending=True, stable=True).indices[:dropped]] = True
            scores = scores.maximum(outlying / outlying.sum().clamp(min=1e-300))
        kept = int((~out).sum())
        return Verdict(
            flagged=out.tolist(),
            excluded=out.tolist(),
            weights=[0.0 if excluded else 1 / kept for excluded in out.tolist()],
            scores=scores.tolist(),
        )


def outlier_scores(values: Tensor) -> Tensor:
    """<u_i - mean, v>^2 with v the top right singular vector of the centered rows.

    With the singular value decomposition C = sum_k s_k l_k v_k^T, <c_i, v_1> = s_1 l_1i, so the eigenvectors of the
    small matrix C C^T are all that is needed.

    Args:
        values: (clients, columns), float64.

    Returns:
        (clients,).
    """
    centered = values - values.mean(dim=0)
    largest = centered.abs().amax().clamp(min=1e-300)
    centered = centered / largest  # shares of the variance are wanted, and no square is to leave the range
    variances, directions = torch.linalg.eigh(centered @ centered.T)
    top: Tensor = variances[-1].clamp(min=0) * directions[:, -1].square()
    return top * largest.square()
