"""Bucketing: the mean of each of several random groups of updates.

Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
arXiv 2006.09365, algorithm 1. ByzFL's Bucketing is the same: the last bucket may be smaller than the others.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.networks.images import seeded_generator


class BucketingSettings(DefenseSettings):
    """The size of the buckets, and the seed of the draw."""

    size: int = Field(default=2, ge=1, description="s, how many updates are averaged in a bucket")
    seed: int = Field(default=0, ge=0, description="draws the buckets of each round")

    def buckets(self, clients: int) -> int:
        """Return the number of buckets of a round, ceil(K / s).

        Args:
            clients: K.

        Example:
            >>> BucketingSettings(size=2).buckets(5)
            3
        """
        return -(-clients // self.size)

    def clients_needed(self, buckets: int) -> int:
        """Return the fewest clients that make so many buckets.

        Args:
            buckets: their number, at least 1.

        Example:
            >>> BucketingSettings(size=2).clients_needed(3)
            5
        """
        return self.size * (buckets - 1) + 1


def average_buckets(round: Round, settings: BucketingSettings) -> Round:
    """Return a round with ceil(K / s) uploads, each the unweighted mean of s clients drawn at random.

    A bucket counts for the samples of all its clients, and its identity is text that names them. Rejected uploads are
    in no bucket, so the round has none.

    Args:
        round: the round.
        settings: s and the seed.
    """
    clients = len(round.uploads)
    buckets = draw_buckets(clients, settings.size, seeded_generator(settings.seed, round.number))
    mixed = round.mixed(
        bucket_matrix(buckets, clients).to(round.global_model[round.parameters[0]].device),
        client_ids=[" + ".join(str(round.client_ids[i]) for i in bucket) for bucket in buckets],
        samples=[sum(round.samples[i] for i in bucket) for bucket in buckets],
    )
    return replace(mixed, rejected={})


def draw_buckets(clients: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """Return the positions of the clients of each bucket.

    Args:
        clients: K.
        size: s.
        generator: draws the order of the clients.

    Example:
        >>> [len(bucket) for bucket in draw_buckets(5, 2, torch.Generator())]
        [2, 2, 1]
    """
    order = torch.randperm(clients, generator=generator).tolist()
    return [order[start : start + size] for start in range(0, clients, size)]


def bucket_matrix(buckets: list[list[int]], clients: int) -> Tensor:
    """Return M with M_bi = 1 / (size of bucket b) if client i is in bucket b, and else 0.

    Args:
        buckets: the positions of the clients of each bucket.
        clients: K.

    Returns:
        (buckets, clients), float64.

    Example:
        >>> bucket_matrix([[2, 0], [1]], clients=3)
        tensor([[0.5000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000]], dtype=torch.float64)
    """
    mixing = torch.zeros(len(buckets), clients, dtype=torch.float64)
    for row, bucket in zip(mixing, buckets, strict=True):
        row[bucket] = 1 / len(bucket)
    return mixing
