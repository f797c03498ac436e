"""Partitions of the training images over clients.

A partition is a list of positions per client; every position occurs exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.settings import Data
from fedml_gradcam_ae.contract.settings import SettingsError

REDRAWS = 1000  # draws of random sizes, until every client has enough samples, before an error is raised

# Positions of samples, one list per client.
Parts = list[list[int]]
# Numbers of samples, (groups, clients); a group is a class or the whole data set.
Counts = NDArray[np.int64]


def partition(labels: Tensor, clients: int, data: Data, seed: int) -> Parts:
    """Partition the training images as the configuration says; the result is determined by the seed.

    Args:
        labels: (samples,), int64.
        clients: the number of clients.
        data: the settings.
        seed: of the run.

    Returns:
        The positions of each client's samples.

    Raises:
        SettingsError: if there are too few images.
    """
    generator = np.random.default_rng(seed)
    if data.partition == "dirichlet":
        assert data.beta is not None
        assert data.least is not None
        return dirichlet(labels, clients, data.beta, data.least, generator)
    if data.partition == "shards":
        assert data.shards_per_client is not None
        return shards(labels, clients, data.shards_per_client, generator)
    if data.unequal is not None:
        assert data.least is not None
        return unequal(len(labels), clients, data.unequal, data.least, generator)
    if clients > len(labels):
        raise SettingsError(
            f"data: {clients} clients cannot share {len(labels)} images: fewer clients, or more images."
        )
    return iid(len(labels), clients, torch.Generator().manual_seed(seed))


def iid(samples: int, clients: int, generator: torch.Generator) -> Parts:
    """Shuffle the samples and split them into parts that differ by at most one sample.

    Args:
        samples: the number of samples.
        clients: the number of clients.
        generator: draws the order.

    Returns:
        The positions of each client's samples.

    Example:
        >>> [len(part) for part in iid(7, 3, torch.Generator().manual_seed(0))]
        [3, 2, 2]
    """
    order = torch.randperm(samples, generator=generator)
    return [part.tolist() for part in order.tensor_split(clients)]


def unequal(samples: int, clients: int, sigma: float, least: int, generator: np.random.Generator) -> Parts:
    """Shuffle the samples and split them into parts with log-normal sizes.

    The sizes are proportional to exp(sigma z), z standard normal. All sizes are drawn again until every part has
    `least` samples.

    Args:
        samples: the number of samples.
        clients: the number of clients.
        sigma: the standard deviation of the logarithm of the sizes.
        least: the minimum number of samples of a client.
        generator: draws the sizes and the order.

    Returns:
        The positions of each client's samples.

    Raises:
        SettingsError: if there are too few samples, or no draw gives every client enough of them.
    """

    def draws() -> Iterator[Counts]:
        while True:
            weights = np.exp(sigma * generator.standard_normal(clients))
            yield _rounded(weights / weights.sum(), samples)[None]

    (sizes,) = _with_enough(draws(), samples, clients, least, f"unequal: {sigma}", "lower data.unequal")
    return [part.tolist() for part in np.split(generator.permutation(samples), np.cumsum(sizes)[:-1])]


def dirichlet(labels: Tensor, clients: int, beta: float, least: int, generator: np.random.Generator) -> Parts:
    """Split each class over the clients in shares drawn from a Dirichlet distribution.

    Of class c, client k gets the share p_ck, (p_c1, ..., p_cK) ~ Dir(beta), as in Yurochkin et al. 2019 and Li et al.
    2022. (Hsu et al. 2019 instead draw each client's mix of classes, with parts of equal size.) A large beta gives
    nearly equal shares; at 0.1, one or two clients hold most of a class. All shares are drawn again until every client
    has `least` samples.

    Args:
        labels: (samples,), int64.
        clients: the number of clients.
        beta: the concentration of the distribution.
        least: the minimum number of samples of a client.
        generator: draws the shares and the samples.

    Returns:
        The positions of each client's samples.

    Raises:
        SettingsError: if there are too few samples, or no draw gives every client enough of them.
    """
    classes = [np.flatnonzero(labels.numpy() == label) for label in np.unique(labels.numpy())]

    def draws() -> Iterator[Counts]:
        while True:
            shares = generator.dirichlet([beta] * clients, size=len(classes))
            yield np.stack([_rounded(row, len(members)) for row, members in zip(shares, classes, strict=True)])

    counts = _with_enough(draws(), len(labels), clients, least, f"beta: {beta}", "raise data.beta")
    parts: Parts = [[] for _ in range(clients)]
    for row, members in zip(counts, classes, strict=True):
        pieces = np.split(generator.permutation(members), np.cumsum(row)[:-1])
        for part, piece in zip(parts, pieces, strict=True):
            part.extend(piece.tolist())
    return parts


def shards(labels: Tensor, clients: int, each: int, generator: np.random.Generator) -> Parts:
    """Sort the samples by label, cut them into `each` shards per client, and assign the shards at random.

    Shards differ by at most one sample. As in McMahan et al. 2017: with 2 shards per client, most clients have two
    classes only.

    Args:
        labels: (samples,), int64.
        clients: the number of clients.
        each: shards per client.
        generator: draws the order within each class and the assignment.

    Returns:
        The positions of each client's samples.

    Raises:
        SettingsError: if there are fewer samples than shards.
    """
    total = clients * each
    if total > len(labels):
        raise SettingsError(
            f"data.shards_per_client: {clients} clients with {each} shards each need at least {total} images, "
            f"found {len(labels)}: fewer shards, fewer clients, or more images."
        )
    order = generator.permutation(len(labels))  # the stable sort below keeps this random order within each class
    by_label = order[np.argsort(labels.numpy()[order], kind="stable")]
    pieces = np.array_split(by_label, total)
    dealt = generator.permutation(total).reshape(clients, each)
    return [np.concatenate([pieces[shard] for shard in row]).tolist() for row in dealt]


def _rounded(shares: NDArray[np.float64], samples: int) -> Counts:
    """Round shares to whole numbers whose sum is `samples`: differences of the cumulative shares, rounded down."""
    ends = np.floor(np.cumsum(shares) * samples + 1e-9).astype(np.int64)
    ends[-1] = samples  # the shares may not add up to exactly 1
    return np.diff(np.minimum(ends, samples), prepend=0)


def _with_enough(draws: Iterator[Counts], samples: int, clients: int, least: int, what: str, remedy: str) -> Counts:
    """Return the first draw, (groups, clients), that gives every client at least `least` samples.

    Args:
        draws: random numbers of samples, each (groups, clients).
        samples: the number of samples.
        clients: the number of clients.
        least: the minimum number of samples of a client.
        what: the setting that the draws depend on, for the error message.
        remedy: how to change that setting, for the error message.
    """
    if least * clients > samples:
        raise SettingsError(
            f"data.least: {clients} clients with at least {least} images each need {least * clients}, found {samples}: "
            "lower data.least, take fewer clients, or more images."
        )
    for _, counts in zip(range(REDRAWS), draws, strict=False):
        if counts.sum(axis=0).min() >= least:
            return counts
    raise SettingsError(
        f"data.least: with {what}, {samples} images and {clients} clients, none of {REDRAWS} draws gave every client "
        f"at least {least} images: {remedy}, lower data.least, take fewer clients, or more images."
    )
