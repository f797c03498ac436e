"""VGAE-MP: poisoned weights that are correlated with each other like the benign clients' weights.

Source: Li et al., "Leverage Variational Graph Representation for Model Poisoning on Federated Learning", 2024
(arXiv 2404.15042). The authors' published code attacks a support vector machine of two classes, whose few weights are
all nodes of the graph. This version is for deep models: only the weights in which the benign clients differ most are
nodes, and a benign upload provides the other weights. The paper tunes the upload further, by a subgradient method under
bounds on distances. Here the ball of the constrained perturbation is the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.maths.ascent import project
from fedml_gradcam_ae.maths.graph_autoencoder import reconstruct_adjacency
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("vgae_mp")
class VGAEMP(Attack):
    """A benign update, changed to a graph of weights that a variational graph autoencoder reconstructs.

    F (nodes, J) holds the values of the overheard updates at the nodes. A holds the cosine similarities of the rows of
    F (0 where they are negative), and A' is the autoencoder's reconstruction of A. L and L' are the Laplacians of A
    and A', with eigenvectors U and U'. The values F' = U' U^T F have the benign spectrum on the reconstructed graph.
    The attackers upload the benign update closest to the mean, with its column of F' at the nodes, projected onto the
    ball of `radius` around the mean.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.vgae_mp import VGAEMP
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": update[None]} for update in updates],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> (upload,) = VGAEMP(VGAEMP.Settings(epochs=2)).poison(round, attackers=[3])
        >>> mean = updates[:3].mean(dim=0)
        >>> bool((upload["weight"] - mean).norm() <= 1.001 * (updates[:3] - mean).norm(dim=1).max())
        True
    """

    class Settings(ColludingSettings):
        """The settings of the attack; the autoencoder's layers have Kipf and Welling's widths, 32 and 16."""

        radius: float = Field(
            default=1.0,
            gt=0,
            description="radius of the ball around the mean, in units of the largest distance of an overheard upload "
            "to it",
        )
        nodes: int = Field(
            default=100, ge=2, description="number of weights that are poisoned, those of largest variance"
        )
        epochs: int = Field(default=100, ge=1, description="training steps of the autoencoder each round")
        learning_rate: float = Field(default=0.01, gt=0, description="Adam's, for the autoencoder")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`.

        They differ only by jitter and the attackers' own deviations, within the ball.
        """
        settings = self.settings
        colluders = Colluders(round, attackers, settings)
        mean = colluders.mean
        nodes = colluders.std.topk(min(settings.nodes, len(mean))).indices.sort().values
        # NaN occurs only if no upload of the round is usable; LAPACK would fail on it.
        features = colluders.updates.sample(nodes).T.nan_to_num(0, 0, 0)
        closest = int(colluders.distances.argmin())
        update = Colluders(round, attackers, settings, heard=[colluders.heard[closest]]).mean
        update[nodes] = self._rebuilt(features, round.number)[:, closest]

        radius = settings.radius * float(colluders.distances.max())
        return colluders.uploads(mean + project(copy - mean, radius) for copy in colluders.jittered(update))

    def _rebuilt(self, features: Tensor, number: int) -> Tensor:
        """Return F' (nodes, J) for F (nodes, J); the round's number seeds the autoencoder."""
        adjacency = similarities(features)
        scale = features.square().mean().sqrt()
        rebuilt = reconstruct_adjacency(
            adjacency,
            features / (scale if scale > 0 else 1),  # updates are small, and get smaller in later rounds
            seeded_generator(self.settings.seed, 4, number),
            epochs=self.settings.epochs,
            learning_rate=self.settings.learning_rate,
        )
        return carried_over(features, laplacian(adjacency), laplacian(rebuilt))


def similarities(features: Tensor) -> Tensor:
    """Return the cosines between rows where they are positive, and 0 elsewhere.

    Args:
        features: (nodes, features).

    Returns:
        (nodes, nodes), 0 on the diagonal and for rows that are 0.

    Example:
        >>> similarities(torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]))
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 0.]])
    """
    lengths = features.norm(dim=1, keepdim=True)
    directions = features / lengths.masked_fill(lengths == 0, 1)
    cosines: Tensor = directions @ directions.T
    return cosines.clamp(0, 1).fill_diagonal_(0)


def laplacian(adjacency: Tensor) -> Tensor:
    """Return the Laplacian diag(A 1) - A, (nodes, nodes).

    Args:
        adjacency: (nodes, nodes), A.

    Example:
        >>> laplacian(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """
    return adjacency.sum(dim=1).diag() - adjacency


def carried_over(features: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return F' = U' U^T F, whose spectrum on the new graph is that of F on the old graph.

    Laplacians are symmetric and positive semidefinite, so their singular vectors are eigenvectors, paired here in the
    order of their eigenvalues. The sign of an eigenvector is arbitrary, but F' depends on it: each u'_k gets the sign
    with <u_k, u'_k> >= 0, so that the same graph gives F' = F. For equal eigenvalues, any rotation among their
    eigenvectors is possible as well; that part of the result is LAPACK's choice.

    Args:
        features: (nodes, features), F.
        old: (nodes, nodes), the Laplacian with eigenvectors U.
        new: (nodes, nodes), the Laplacian with eigenvectors U'.

    Returns:
        (nodes, features), F'.
    """
    vectors: Tensor = torch.linalg.eigh(old).eigenvectors
    others: Tensor = torch.linalg.eigh(new).eigenvectors
    signs = torch.where((vectors * others).sum(dim=0) < 0, -1.0, 1.0).to(vectors.dtype)
    return others * signs @ (vectors.T @ features)
