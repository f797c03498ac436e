"""VGAE-MP: malicious weights that are related to one another as the benign clients' are.

Source: Li et al., "Leverage Variational Graph Representation for Model Poisoning on Federated Learning", 2024
(arXiv 2404.15042). The authors' published code attacks a support vector machine of two classes, whose few weights are
all nodes of the graph. This is its reading for deep models: only the weights in which the benign clients differ most
are nodes, and a benign upload provides the others. The paper tunes the upload further, by a subgradient method under
bounds on distances; here the ball of the constrained perturbation is the bound.
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
    """A graph of weights is rebuilt by a variational autoencoder, and the benign values are carried over to it.

    F (nodes, J) are the overheard updates' values at the nodes, A the cosine similarities of its rows (0 where they
    are negative), A' what the autoencoder makes of A, L and L' their Laplacians with eigenvectors U and U'. The values
    F' = U' U^T F have the benign spectrum on the rebuilt graph. Uploaded is the benign update closest to the mean, with
    its column of F' at the nodes, projected onto the ball of `radius` around the mean.
    """

    class Settings(ColludingSettings):
        """The sizes of the autoencoder are those of Kipf and Welling, 32 and 16."""

        radius: float = Field(
            default=1.0,
            gt=0,
            description="of the ball around the mean, in units of the largest distance of an overheard upload to it",
        )
        nodes: int = Field(default=100, ge=2, description="how many weights, those of largest variance, are poisoned")
        epochs: int = Field(default=100, ge=1, description="training steps of the autoencoder each round")
        learning_rate: float = Field(default=0.01, gt=0, description="Adam's, for the autoencoder")

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same upload for each position in `attackers`, but for the jitter, which stays in the ball."""
        settings = self.settings
        colluders = Colluders(round, attackers, settings)
        mean = colluders.mean
        nodes = colluders.std.topk(min(settings.nodes, len(mean))).indices.sort().values
        # NaN is here only if no upload of the round is usable; LAPACK would fail on it.
        features = colluders.updates.sample(nodes).T.nan_to_num(0, 0, 0)
        closest = int(colluders.distances.argmin())
        update = Colluders(round, attackers, settings, heard=[colluders.heard[closest]]).mean
        update[nodes] = self._rebuilt(features, round.number)[:, closest]

        radius = settings.radius * float(colluders.distances.max())
        return colluders.uploads(mean + project(copy - mean, radius) for copy in colluders.jittered(update))

    def _rebuilt(self, features: Tensor, number: int) -> Tensor:
        """F' (nodes, J) of F."""
        adjacency = similarities(features)
        scale = features.square().mean().sqrt()
        rebuilt = reconstruct_adjacency(
            adjacency,
            features / (scale if scale > 0 else 1),  # updates are small numbers, and smaller every round
            seeded_generator(self.settings.seed, 4, number),
            epochs=self.settings.epochs,
            learning_rate=self.settings.learning_rate,
        )
        return carried_over(features, laplacian(adjacency), laplacian(rebuilt))


def similarities(features: Tensor) -> Tensor:
    """The cosine of each two rows where it is positive, else 0; 0 on the diagonal and for rows that are 0.

    Args:
        features: (nodes, features).
    """
    lengths = features.norm(dim=1, keepdim=True)
    directions = features / lengths.masked_fill(lengths == 0, 1)
    cosines: Tensor = directions @ directions.T
    return cosines.clamp(0, 1).fill_diagonal_(0)


def laplacian(adjacency: Tensor) -> Tensor:
    """diag(A 1) - A."""
    return adjacency.sum(dim=1).diag() - adjacency


def carried_over(features: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """F' = U' U^T F: the spectrum of F on one graph becomes that of F' on another.

    Laplacians are symmetric and positive semidefinite, so their singular vectors are eigenvectors, paired here in the
    order of their eigenvalues. The sign of an eigenvector means nothing, but F' depends on it: each u'_k takes the one
    with <u_k, u'_k> >= 0. So the same graph gives F' = F. Equal eigenvalues leave more than a sign open (any rotation
    among their vectors); that much of the answer is LAPACK's choice.

    Args:
        features: (nodes, features), F.
        old: (nodes, nodes), the Laplacian with eigenvectors U.
        new: (nodes, nodes), the Laplacian with eigenvectors U'.
    """
    vectors: Tensor = torch.linalg.eigh(old).eigenvectors
    others: Tensor = torch.linalg.eigh(new).eigenvectors
    signs = torch.where((vectors * others).sum(dim=0) < 0, -1.0, 1.0).to(vectors.dtype)
    return others * signs @ (vectors.T @ features)
