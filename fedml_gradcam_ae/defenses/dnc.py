"""Divide and conquer (DnC): leave out the clients furthest from the mean along the direction of largest variance.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, algorithm 2.
The paper defines no score over the repetitions; here it is a client's largest share of the variance in any repetition.
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
    """The mean of the clients that pass a spectral filter on each of several samples of coordinates.

    Each repetition draws coordinates and drops the floor(c f) clients whose centered updates reach furthest along the
    top right singular vector. The clients kept in all repetitions are averaged, unweighted as in the paper.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.dnc import DnC
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 0.9, 1.2, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = DnC(DnC.Settings(malicious=1)).judge(round)
        >>> [f"{score:.2f}" for score in verdict.scores]
        ['0.05', '0.05', '0.06', '0.04', '0.80']
        >>> verdict.weights
        [0.25, 0.25, 0.25, 0.25, 0.0]
    """

    class Settings(AssumesMalicious):
        """The settings of DnC; the defaults are the paper's, except for f."""

        repetitions: int = Field(default=5, ge=1, description="number of times that coordinates are sampled")
        coordinates: int = Field(default=10_000, ge=1, description="number of coordinates in each sample")
        filter_fraction: float = Field(
            default=1.5,
            gt=0,
            description="c: each repetition drops the floor(c * f) clients with the largest outlier scores",
        )
        seed: int = Field(default=0, ge=0, description="seed of the sampled coordinates")

        @override
        def needed(self, malicious: int) -> int:
            """Return the number of uploads needed: 2f + 1, and more than a repetition drops."""
            return max(super().needed(malicious), self.dropped(malicious) + 1)

        def dropped(self, malicious: int) -> int:
            """Return floor(c f), the number of clients that a repetition drops."""
            return int(self.filter_fraction * malicious)

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Give equal weights to the clients kept in all repetitions; if there are none, the global model stays.

        The score is a client's largest share of the variance in any repetition.

        Raises:
            TooFewUploads: if there are fewer uploads than `Settings.needed`.
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
    """Return <u_i - mean, v>^2 with v the top right singular vector of the centered rows.

    With the singular value decomposition C = sum_k s_k l_k v_k^T, <c_i, v_1> = s_1 l_1i, so the eigenvectors of the
    small matrix C C^T suffice.

    Args:
        values: (clients, columns), float64.

    Returns:
        (clients,), float64.

    Example:
        >>> outlier_scores(torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]], dtype=torch.float64))
        tensor([1.0000, 1.0000, 4.0000], dtype=torch.float64)
    """
    centered = values - values.mean(dim=0)
    largest = centered.abs().amax().clamp(min=1e-300)
    centered = centered / largest  # so that no square overflows; the result is scaled back
    variances, directions = torch.linalg.eigh(centered @ centered.T)
    top: Tensor = variances[-1].clamp(min=0) * directions[:, -1].square()
    return top * largest.square()
