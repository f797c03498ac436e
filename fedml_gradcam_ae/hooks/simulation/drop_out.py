"""Uploads that get lost on their way to the server."""

from __future__ import annotations

import torch

from fedml_gradcam_ae.networks.images import seeded_generator


def arriving(clients: int, share: float, seed: int, number: int) -> list[int]:
    """Return the positions of the uploads that arrive in a round, in ascending order, at least one.

    Each upload is lost with the same probability, independently of the others.

    Args:
        clients: the number of uploads, at least one.
        share: the probability that an upload is lost, in [0, 1).
        seed: of the run.
        number: the round, counted from 1.

    Example:
        >>> arriving(10, share=0.3, seed=0, number=1)
        [0, 1, 2, 3, 4, 6, 7, 9]
    """
    if share == 0:
        return list(range(clients))
    draws = torch.rand(clients, generator=seeded_generator(seed, 7, number))
    kept = (draws >= share).nonzero()[:, 0].tolist()
    return kept or [int(draws.argmax())]
