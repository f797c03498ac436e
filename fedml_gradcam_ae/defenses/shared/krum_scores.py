"""Krum's score, for the rules that rank clients by the distances to their nearest neighbors."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.settings import AssumesMalicious


def krum_scores(squared_distances: Tensor, malicious: int) -> Tensor:
    """Return s_i, the sum of the K - f - 2 smallest squared Euclidean distances D_ij to other clients j.

    Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    section 4. FedML and Flower count neighbors in the same way. ByzFL takes one more (K - f - 1), FLPoison takes the
    distances unsquared and Blades their fourth power.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal.
        malicious: f; one neighbor is counted where there are fewer than f + 3 clients.

    Returns:
        (clients,), higher is more suspicious; all 0 for a single client.

    Example:
        >>> import torch
        >>> positions = torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0])
        >>> krum_scores((positions - positions[:, None]).square(), malicious=1)
        tensor([ 5.,  2.,  5., 13., 52.])
    """
    clients = len(squared_distances)
    neighbors = max(1, clients - malicious - 2)
    others = squared_distances.clone().fill_diagonal_(-1).sort(dim=1).values[:, 1:]
    return others[:, :neighbors].sum(dim=1)


def tolerated(clients: int) -> int:
    """Return the largest f with K > 2f + 2, at least 0: Krum's guarantee is proven up to this f.

    Args:
        clients: K.
    """
    return max(0, (clients - 3) // 2)


class KrumSettings(AssumesMalicious):
    """The settings of rules that rank by Krum's score: the assumed number of malicious clients f."""

    @override
    def check_clients(self, clients: int) -> None:
        """Check that K > 2f + 2.

        Args:
            clients: K, the number of clients per round.

        Raises:
            ValueError: if it does not hold.
        """
        malicious = self.assumed(clients)
        if malicious > tolerated(clients):
            raise ValueError(
                f"malicious: {malicious} of {clients} clients a round are too many, since Krum needs more than "
                f"2 * malicious + 2 clients; at most {tolerated(clients)} here"
            )

    @override
    def needed(self, malicious: int) -> int:
        """Return the number of uploads needed: 2f + 3, or 1 where f is 0."""
        return 2 * malicious + 3 if malicious else 1
