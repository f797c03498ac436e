"""A variational graph autoencoder, which learns to reconstruct a graph's adjacency from it and the nodes' features.

Source: Kipf and Welling, "Variational Graph Auto-Encoders", NeurIPS Bayesian Deep Learning Workshop 2016: two graph
convolutions, a Gaussian latent vector per node, an inner-product decoder. Unlike there, edges have weights: the
adjacency is any symmetric matrix of numbers from 0 to 1. All pairs of nodes have the same weight in the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def reconstruct_adjacency(
    adjacency: Tensor,
    features: Tensor,
    generator: torch.Generator,
    hidden: int = 32,
    latent: int = 16,
    epochs: int = 100,
    learning_rate: float = 0.01,
) -> Tensor:
    """Return the adjacency A' = sigmoid(M M^T) that the autoencoder reconstructs from A, with 0 on the diagonal.

    With N the normalized adjacency, M = N ReLU(N X W_0) W_1 are the means of the nodes' latent vectors, and
    S = N ReLU(N X W_0) W_2 the logarithms of their standard deviations. Training decodes Z = M + exp(S) * noise. The
    loss is the mean binary cross-entropy of sigmoid(Z Z^T) against A + I, plus the Kullback-Leibler divergence from a
    standard normal distribution per pair of nodes.

    Args:
        adjacency: (nodes, nodes), A, symmetric, from 0 to 1, 0 on the diagonal.
        features: (nodes, features), X.
        generator: draws the initial weights (Glorot uniform) and the noise, on the CPU.
        hidden: the number of columns of W_0.
        latent: the number of columns of W_1 and of W_2.
        epochs: the number of Adam's steps.
        learning_rate: Adam's learning rate.

    Returns:
        (nodes, nodes), float64.
    """
    nodes = len(adjacency)
    device = adjacency.device
    features, adjacency = features.double(), adjacency.double()
    convolve = normalized(adjacency)
    target = adjacency + torch.eye(nodes, dtype=torch.float64, device=device)

    def weights(inputs: int, outputs: int) -> Tensor:
        bound = (6 / (inputs + outputs)) ** 0.5
        drawn = torch.empty(inputs, outputs, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
        return drawn.to(device).requires_grad_()

    first, to_mean, to_log_std = weights(features.shape[1], hidden), weights(hidden, latent), weights(hidden, latent)

    def encode() -> tuple[Tensor, Tensor]:
        activations = (convolve @ features @ first).relu()
        return convolve @ activations @ to_mean, convolve @ activations @ to_log_std

    optimizer = torch.optim.Adam([first, to_mean, to_log_std], lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            mean, log_std = encode()
            noise = torch.randn(nodes, latent, generator=generator, dtype=torch.float64).to(device)
            sampled = mean + log_std.exp() * noise
            likelihood = binary_cross_entropy_with_logits(sampled @ sampled.T, target)
            divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum() / nodes**2
            optimizer.zero_grad()
            (likelihood + divergence).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        mean, _ = encode()
        rebuilt: Tensor = (mean @ mean.T).sigmoid().fill_diagonal_(0)
    return rebuilt


def normalized(adjacency: Tensor) -> Tensor:
    """Return the normalized adjacency D^-1/2 (A + I) D^-1/2, with D the diagonal matrix of the row sums of A + I.

    Args:
        adjacency: (nodes, nodes), A.

    Example:
        >>> normalized(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    looped = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype, device=adjacency.device)
    scale = looped.sum(dim=1).rsqrt()
    return scale[:, None] * looped * scale
