"""How training images are spread over clients: lists of positions, one per client, every position exactly once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.settings import Data
from fedml_gradcam_ae.contract.settings import SettingsError

REDRAWS = 1000  # before it is said that the sizes asked for do not come about

Parts = list[list[int]]
Counts = NDArray[np.int64]


def partition(labels: Tensor, clients: int, data: Data, seed: int) -> Parts:
    """The partition that the configuration asks for; the same seed, the same partition.

    Args:
        labels: (samples,), int64.
        clients: how many.
        data: the settings.
        seed: the run's.

    Raises:
        SettingsError: if there are too few images for it.
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
    """Shuffle and deal out: parts that differ by at most one sample."""
    order = torch.randperm(samples, generator=generator)
    return [part.tolist() for part in order.tensor_split(clients)]


def unequal(samples: int, clients: int, sigma: float, least: int, generator: np.random.Generator) -> Parts:
    """Shuffle and deal out parts whose sizes are proportional to exp(sigma z), z standard normal.

    All are drawn again until every part has `least` samples.
    """

    def draws() -> Iterator[Counts]:
        while True:
            weights = np.exp(sigma * generator.standard_normal(clients))
            yield _rounded(weights / weights.sum(), samples)[None]

    (sizes,) = _with_enough(draws(), samples, clients, least, f"unequal: {sigma}", "lower data.unequal")
    return [part.tolist() for part in np.split(generator.permutation(samples), np.cumsum(sizes)[:-1])]


def dirichlet(labels: Tensor, clients: int, beta: float, least: int, generator: np.random.Generator) -> Parts:
    """Latent Dirichlet allocation: of each class c, client k gets the share p_ck, (p_c1, ..., p_cK) ~ Dir(beta).

    As in Yurochkin et al. 2019 and Li et al. 2022; Hsu et al. 2019 draw each client's mix of classes instead, with
    parts of equal size. A large beta comes near equal shares; at 0.1 most of a class lies with one or two clients.
    All shares are drawn again until every client has `least` samples.
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
    """Sort by label, cut into `each` shards per client that differ by at most one sample, deal them out at random.

    As in McMahan et al. 2017: with 2 shards each, most clients see two classes only.
    """
    total = clients * each
    if total > len(labels):
        raise SettingsError(
            f"data.shards_per_client: {clients} clients with {each} shards each need at least {total} images, "
            f"found {len(labels)}: fewer shards, fewer clients, or more images."
        )
    order = generator.permutation(len(labels))  # which samples of a class go together is a matter of chance
    by_label = order[np.argsort(labels.numpy()[order], kind="stable")]
    pieces = np.array_split(by_label, total)
    dealt = generator.permutation(total).reshape(clients, each)
    return [np.concatenate([pieces[shard] for shard in row]).tolist() for row in dealt]


def _rounded(shares: NDArray[np.float64], samples: int) -> Counts:
    """Whole numbers with the sum `samples`: the shares' running sum, rounded down, in differences."""
    ends = np.floor(np.cumsum(shares) * samples + 1e-9).astype(np.int64)
    ends[-1] = samples  # whatever the floats add up to
    return np.diff(np.minimum(ends, samples), prepend=0)


def _with_enough(draws: Iterator[Counts], samples: int, clients: int, least: int, what: str, remedy: str) -> Counts:
    """The first draw, (groups, clients), that gives every client enough."""
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
