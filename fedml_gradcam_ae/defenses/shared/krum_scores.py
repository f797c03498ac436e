"""Krum's score, shared by the rules that rank clients by the distances to their nearest neighbors."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.settings import AssumesMalicious


def krum_scores(squared_distances: Tensor, malicious: int) -> Tensor:
    """s_i = the sum of the K - f - 2 smallest D_ij, j != i, D_ij squared Euclidean distances.

    Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    section 4. FedML and Flower count neighbors in the same way; ByzFL takes one more (K - f - 1), FLPoison the
    distances unsquared, Blades their fourth power.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal.
        malicious: f; with fewer than f + 3 clients one neighbor is left to count.

    Returns:
        (clients,), higher is more suspicious; all 0 for a single client.
    """
    clients = len(squared_distances)
    neighbors = max(1, clients - malicious - 2)
    others = squared_distances.clone().fill_diagonal_(-1).sort(dim=1).values[:, 1:]
    return others[:, :neighbors].sum(dim=1)


def tolerated(clients: int) -> int:
    """The largest f with K > 2f + 2, up to which Krum is proven to hold (at least 0)."""
    return max(0, (clients - 3) // 2)


class KrumSettings(AssumesMalicious):
    """What every rule that ranks by Krum's score takes: f."""

    @override
    def check_clients(self, clients: int) -> None:
        """K > 2f + 2."""
        malicious = self.assumed(clients)
        if malicious > tolerated(clients):
            raise ValueError(
                f"malicious: {malicious} of {clients} clients a round are too many, since Krum needs more than "
                f"2 * malicious + 2 clients; at most {tolerated(clients)} here"
            )

    @override
    def needed(self, malicious: int) -> int:
        """2f + 3 uploads; 1 where f is 0."""
        return 2 * malicious + 3 if malicious else 1
