"""How suspicious a round's heat maps make each client: the evidence of the `robust` profile.

Source: this project's own; docs/robust.md derives it, docs/research/robust.md has the figures. All functions look at
the differences between an upload's heat maps and the global model's. `trusted` names the clients that are compared
with: those that are not copies of one another, so that a crowd of colluders cannot define what is usual.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

MAD_TO_STD = 1.4826  # of a normal distribution
TINY = 1e-12


def differences(maps: Tensor, reference: Tensor) -> Tensor:
    """What an upload changes in the heat maps of all classes, (clients, images, classes, height, width), float64.

    A shift that all classes share changes no probability and is taken out.

    Args:
        maps: (clients, images, classes, height, width), finite.
        reference: the global model's, (images, classes, height, width).
    """
    changed = maps.double() - reference.double()
    return changed - changed.mean(dim=2, keepdim=True)


def distance_ratios(changes: Tensor) -> Tensor:
    """||d_i - d_j|| over the median distance of client i to the others, (clients, clients); infinite for j = i.

    Models that were trained apart are about equally far from one another. Copies are not, and noise on a copy's many
    weights, which changes what it does very little, does not hide it.

    Where that median is 0, as if all had uploaded the same, there is nothing to compare with: infinite.

    Args:
        changes: (clients, numbers), at least 2 clients.
    """
    return ratios_of(torch.cdist(changes, changes, compute_mode="donot_use_mm_for_euclid_dist"))


def ratios_of(distances: Tensor) -> Tensor:
    """Distances between clients, (clients, clients), in units of each one's median distance to the others."""
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    usual = median(distances[~itself].view(len(distances), -1), dim=1)[:, None]
    return (distances / usual).masked_fill(itself | (usual == 0), torch.inf)


def groups(near: Tensor) -> list[list[int]]:
    """The connected components of a graph, each in ascending order.

    Args:
        near: (clients, clients), bool: which pairs belong together.
    """
    number, labels = connected_components(near.cpu().numpy(), directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in range(number)]


def in_units_of_mad(changes: Tensor, trusted: Tensor, limit: float) -> Tensor:
    """The distance of each client's changes from the trusted clients' median, in units of their spread.

    Args:
        changes: (clients, images, numbers).
        trusted: (clients,), bool, at least one.
        limit: numbers beyond it, either way, are set to it: one upload must not rule the others' autoencoders.
    """
    deviations = changes - median(changes[trusted])
    spread = MAD_TO_STD * median(deviations[trusted].abs().flatten(0, 1)).mean()
    return (deviations / spread.clamp(min=TINY)).clamp(-limit, limit)


def agreement(changes: Tensor, trusted: Tensor) -> Tensor:
    """The cosine between a client's changes and the other trusted clients' mean direction, (clients,).

    Args:
        changes: (clients, numbers).
        trusted: (clients,), bool.
    """
    directions = changes / changes.norm(dim=1, keepdim=True).clamp(min=TINY)
    counted = directions * trusted[:, None]
    others = counted.sum(dim=0) - counted
    cosines: Tensor = (directions * others).sum(dim=1) / others.norm(dim=1).clamp(min=TINY)
    return cosines


def tracking(measured: Tensor, stored: Tensor, layers: Tensor, trusted: Tensor) -> Tensor:
    """How well the statistics that each model stores follow its weights, (clients,): a mean over layers of cosines.

    BatchNorm's running means are where training has taken them: they moved with the weights. On the same images, other
    weights have other means; the cosine is between what distinguishes a client's stored means from the trusted clients'
    median and what distinguishes its measured ones. Weights that were not trained together with these statistics, but
    turned around or put together afterward, have a cosine of 0 or below.

    Args:
        measured: (clients, channels), the means of each model's weights on the same images.
        stored: (clients, channels), the running means that it holds.
        layers: (channels,), int64, the number of each channel's layer, from 0.
        trusted: (clients,), bool, at least one.
    """
    weights, statistics = (values.double() - median(values[trusted].double()) for values in (measured, stored))
    products = torch.stack([weights * statistics, weights.square(), statistics.square()])
    both, of_weights, of_statistics = _layer_sums(products, layers).unbind()
    cosines = both / of_weights.sqrt().clamp(min=TINY) / of_statistics.sqrt().clamp(min=TINY)
    return cosines.mean(dim=1)


def tracking_by_chance(layers: Tensor) -> float:
    """The standard deviation of `tracking` where stored and measured means have nothing to do with one another.

    A cosine of two directions among n channels drawn at random has 0 and 1 / sqrt(n).

    Args:
        layers: (channels,), int64, the number of each channel's layer, from 0.
    """
    channels = torch.bincount(layers).double()
    return float(channels.reciprocal().sum().sqrt() / len(channels))


def layer_deviations(measured: Tensor, layers: Tensor) -> Tensor:
    """What distinguishes each model's means from the median, (clients, channels), float64; usually of length 1 a layer.

    Args:
        measured: (clients, channels), the means of each model's weights on the same images.
        layers: (channels,), int64, the number of each channel's layer, from 0.
    """
    moved = measured.double() - median(measured.double())
    usual = median(_layer_sums(moved.square(), layers).sqrt()).clamp(min=TINY)
    return moved / usual[layers]


def _layer_sums(values: Tensor, layers: Tensor) -> Tensor:
    """The sum over the channels of each layer, (..., layers): of (..., channels)."""
    return values @ torch.nn.functional.one_hot(layers).to(values)


def median_and_spread(values: Tensor, trusted: Tensor) -> tuple[Tensor, Tensor]:
    """The trusted clients' median and 1.4826 times their median absolute deviation (a normal distribution's standard
    deviation), never 0.

    Args:
        values: (clients,).
        trusted: (clients,), bool.
    """
    center = median(values[trusted])
    return center, (MAD_TO_STD * median((values[trusted] - center).abs())).clamp(min=TINY)


@lru_cache
def z_score_exceeded_by(rate: float, clients: int) -> float:
    """The robust z-score (value - median) / spread that this share of normal values exceeds, found by drawing them.

    With few values median and spread are themselves uncertain: of 0.001 it is 3.1 among very many, 4.3 among 20, 10
    among 7.

    Args:
        rate: above 0, at most 0.5.
        clients: how many values there are, at least 2.
    """
    rounds = max(2_000, round(1_000 / rate / clients))
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((rounds, clients)))
    center = median(drawn, dim=1)[:, None]
    spread = MAD_TO_STD * median((drawn - center).abs(), dim=1)[:, None]
    return float(np.quantile(((drawn - center) / spread.clamp(min=TINY)).numpy(), 1 - rate))


def median(values: Tensor, dim: int = 0) -> Tensor:
    """The median along one dimension, the mean of the two middle ones where their number is even."""
    ordered, count = values.sort(dim=dim).values, values.shape[dim]
    return (ordered.select(dim, (count - 1) // 2) + ordered.select(dim, count // 2)) / 2
