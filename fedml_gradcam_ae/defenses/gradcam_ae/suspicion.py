"""The formulas of the `robust` profile's evidence, as functions of tensors.

Source: this project's own; docs/robust.md derives it, docs/research/robust.md has the figures. Heat maps enter as the
differences between an upload's maps and the global model's. `trusted` is the mask of the reference set: the clients
that are not copies of one another, so that many colluders cannot determine the medians.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fedml_gradcam_ae.maths.cosine import unit_products
from fedml_gradcam_ae.maths.order_statistics import median

MAD_TO_STD = 1.4826  # scales a normal distribution's median absolute deviation (MAD) to its standard deviation
TINY = 1e-12  # the smallest divisor


def differences(maps: Tensor, reference: Tensor) -> Tensor:
    """Return the changes of the heat maps from the global model's, without their mean over classes.

    A shift that all classes share changes no probability and is therefore subtracted.

    Args:
        maps: (clients, images, classes, height, width), finite.
        reference: (images, classes, height, width), the global model's maps.

    Returns:
        (clients, images, classes, height, width), float64.
    """
    changed = maps.double() - reference.double()
    return changed - changed.mean(dim=2, keepdim=True)


def distance_ratios(changes: Tensor) -> Tensor:
    """Return the distances ||d_i - d_j||, divided by the median distance of client i to the others.

    Independently trained models have similar distances to one another. Copies are closer to each other, and noise on a
    copy's many weights does not hide it, since it changes the function of the model very little.

    Args:
        changes: (clients, numbers), d, at least 2 clients.

    Returns:
        (clients, clients); infinite for j = i, and where the median is 0, since there is no unit to compare with.

    Example:
        >>> distance_ratios(torch.tensor([[0.0], [0.0], [4.0], [-3.0]]))[0]
        tensor([   inf, 0.0000, 1.3333, 1.0000])
    """
    return ratios_of(torch.cdist(changes, changes, compute_mode="donot_use_mm_for_euclid_dist"))


def ratios_of(distances: Tensor) -> Tensor:
    """Return distances between clients, each row divided by the client's median distance to the others.

    Args:
        distances: (clients, clients).

    Returns:
        (clients, clients); infinite on the diagonal and where the median is 0.
    """
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    usual = median(distances[~itself].view(len(distances), -1), dim=1)[:, None]
    return (distances / usual).masked_fill(itself | (usual == 0), torch.inf)


def effective_dimensions(changes: Tensor) -> float:
    """Return in how many directions clients differ: n^2 / sum of the squared cosines of all pairs of n clients.

    The cosines are those of the differences from the median client. n orthogonal differences have n directions, those
    along one line have one.

    Args:
        changes: (clients, numbers), at least 1 client.

    Example:
        >>> effective_dimensions(torch.tensor([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0], [-7.0, -7.0]]))
        1.0
    """
    different = changes - median(changes, dim=0)
    cosines = unit_products(different @ different.T)
    return round(len(changes) ** 2 / max(float(cosines.square().sum()), TINY), 9)


def groups(near: Tensor) -> list[list[int]]:
    """Return the connected components of a graph, each in ascending order.

    Args:
        near: (clients, clients), bool: the edges; one direction is enough.

    Example:
        >>> groups(torch.tensor([[False, True, False], [False, False, False], [False, False, False]]))
        [[0, 1], [2]]
    """
    number, labels = connected_components(near.cpu().numpy(), directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in range(number)]


def in_units_of_mad(changes: Tensor, trusted: Tensor, limit: float) -> Tensor:
    """Return the deviations from the reference set's median, in units of its MAD (scaled, mean over positions).

    Args:
        changes: (clients, images, numbers).
        trusted: (clients,), bool: the reference set, at least one client.
        limit: deviations are clamped to [-limit, limit], so that no upload dominates the training of autoencoders.

    Returns:
        (clients, images, numbers).
    """
    deviations = changes - median(changes[trusted])
    spread = MAD_TO_STD * median(deviations[trusted].abs().flatten(0, 1)).mean()
    return (deviations / spread.clamp(min=TINY)).clamp(-limit, limit)


def agreement(products: Tensor, trusted: Tensor) -> Tensor:
    """Return the cosine between each client's update and the mean direction of the other trusted clients.

    Args:
        products: (clients, clients), the inner products of the updates; a client whose length is 0 or not finite has an
            agreement of 0.
        trusted: (clients,), bool.

    Returns:
        (clients,), float64.

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
        >>> agreement(updates @ updates.T, torch.tensor([True, True, True, True]))
        tensor([ 1.,  1.,  1., -1.], dtype=torch.float64)
    """
    cosines = unit_products(products.double())
    counted = trusted.double()
    along = cosines @ counted  # with the sum of all trusted directions, the client's own included
    own = counted * cosines.diagonal()
    squared = counted @ along - own * (2 * along - 1)  # the squared length of the sum of the others
    return (along - own) / squared.clamp(min=TINY).sqrt()


def tracking(measured: Tensor, stored: Tensor, layers: Tensor, trusted: Tensor) -> Tensor:
    """Return how well each model's running means follow its weights: the mean over layers of a cosine.

    Training moves BatchNorm's running means together with the weights, and different weights produce different means on
    the same images. The cosine is between a client's stored means and its measured means, both less the reference set's
    median. Weights that were not trained together with these statistics, but reversed or combined afterward, have a
    cosine of 0 or below.

    Args:
        measured: (clients, channels), the means that each model's weights produce on the same images.
        stored: (clients, channels), the running means in each upload.
        layers: (channels,), int64, the number of each channel's layer, from 0.
        trusted: (clients,), bool: the reference set, at least one client.

    Returns:
        (clients,), float64, in [-1, 1].

    Example:
        >>> measured = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 1.0]])
        >>> stored = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [2.0, -2.0]])  # the last client is reversed
        >>> cosines = tracking(measured, stored, torch.tensor([0, 0]), torch.tensor([True, True, True, False]))
        >>> [f"{cosine:.2f}" for cosine in cosines.tolist()]
        ['1.00', '1.00', '0.00', '-1.00']
    """
    weights, statistics = (values.double() - median(values[trusted].double()) for values in (measured, stored))
    products = torch.stack([weights * statistics, weights.square(), statistics.square()])
    both, of_weights, of_statistics = _layer_sums(products, layers).unbind()
    cosines = both / of_weights.sqrt().clamp(min=TINY) / of_statistics.sqrt().clamp(min=TINY)
    return cosines.mean(dim=1)


def tracking_by_chance(layers: Tensor) -> float:
    """Return the standard deviation of `tracking` for unrelated stored and measured means.

    The cosine of two random directions in n channels has the mean 0 and the standard deviation 1 / sqrt(n).

    Args:
        layers: (channels,), int64, the number of each channel's layer, from 0.

    Example:
        >>> tracking_by_chance(torch.tensor([0, 0, 0, 0]))
        0.5
    """
    channels = torch.bincount(layers).double()
    return float(channels.reciprocal().sum().sqrt() / len(channels))


def layer_deviations(measured: Tensor, layers: Tensor) -> Tensor:
    """Return the deviations of each model's means from the median, scaled to a median length of 1 in each layer.

    Args:
        measured: (clients, channels), the means that each model's weights produce on the same images.
        layers: (channels,), int64, the number of each channel's layer, from 0.

    Returns:
        (clients, channels), float64.
    """
    moved = measured.double() - median(measured.double())
    usual = median(_layer_sums(moved.square(), layers).sqrt()).clamp(min=TINY)
    return moved / usual[layers]


def _layer_sums(values: Tensor, layers: Tensor) -> Tensor:
    """Return the sum over the channels of each layer, (..., layers), of values (..., channels)."""
    return values @ torch.nn.functional.one_hot(layers).to(values)


def median_and_spread(values: Tensor, trusted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the reference set's median and its MAD, scaled by 1.4826 to a normal distribution's standard deviation.

    Args:
        values: (clients,).
        trusted: (clients,), bool: the reference set.

    Returns:
        Two scalars; the second one is never 0.

    Example:
        >>> center, spread = median_and_spread(torch.tensor([1.0, 2.0, 3.0, 90.0]), torch.tensor([True] * 3 + [False]))
        >>> f"{center:.4f}", f"{spread:.4f}"
        ('2.0000', '1.4826')
    """
    center = median(values[trusted])
    return center, (MAD_TO_STD * median((values[trusted] - center).abs())).clamp(min=TINY)


@lru_cache
def z_score_exceeded_by(rate: float, clients: int) -> float:
    """Return the 1 - rate quantile of the robust z-score (value - median) / spread of normal values, by simulation.

    With few values, median and spread are themselves uncertain: for a rate of 0.001 the quantile is 3.1 for very many
    values, 4.3 for 20 and 10 for 7.

    Args:
        rate: the share of values above the quantile, above 0 and at most 0.5.
        clients: the number of values, at least 2.
    """
    rounds = max(2_000, round(1_000 / rate / clients))
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal((rounds, clients)))
    center = median(drawn, dim=1)[:, None]
    spread = MAD_TO_STD * median((drawn - center).abs(), dim=1)[:, None]
    return float(np.quantile(((drawn - center) / spread.clamp(min=TINY)).numpy(), 1 - rate))
