"""Groups of updates that have more in common than the labels of their clients explain.

Source: this project's own; docs/robust.md. Honest clients train from the same model. What is left of their updates
without the common direction is noise, and what the labels of their data add: clients with the same labels go the same
way, and the output layer shows which labels a client has. Attackers who do the same thing have that in common as well,
whatever it is: a backdoor, other labels, a computed direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from fedml_gradcam_ae.maths.cosine import cosine_matrix, unit_products

TINY = 1e-12  # The smallest divisor.


@dataclass(frozen=True, eq=False)
class Relatives:
    """The most striking group of clients.

    Attributes:
        members: (clients,), bool, fewer than half of the clients; nobody if no two clients can be compared.
        strength: the mean similarity in the group, beyond what labels explain, in its own standard deviations.
        rival: the largest strength of a group of other clients; at least 0.
        strengths: (clients,), float64, the largest strength of a group that the client is in.
    """

    members: Tensor
    strength: float
    rival: float
    strengths: Tensor


def residual_cosines(products: Tensor) -> Tensor:
    """Return the cosines between updates of unit length, less their mean.

    Without the mean, independent updates are as good as orthogonal: each cosine is -1 / (clients - 1) on average.

    Args:
        products: (clients, clients), the inner products of the updates.

    Returns:
        (clients, clients), float64; 1 on the diagonal, and 0 for an update that equals the mean. Updates of length 0,
        and those whose products overflow, count as 0 and so have minus the mean in common.

    Example:
        >>> updates = torch.tensor([[2.0, 1.0], [2.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
        >>> residual_cosines(updates @ updates.T)[0].round(decimals=6)
        tensor([ 1., -1.,  1., -1.], dtype=torch.float64)
    """
    cosines = unit_products(products.double())
    less = cosines - cosines.mean(dim=0)
    less = less - less.mean(dim=1, keepdim=True)
    apart = less.diagonal() > 1e-12
    return cosine_matrix(less * apart * apart[:, None])


def most_related(updates: Tensor, labels: Tensor) -> Relatives:
    """Return the group whose members' updates have most in common, beyond what their labels explain.

    The candidates are the groups of an average-linkage clustering. For each, a straight line through all pairs of
    other clients predicts the cosine of two updates from the cosine of their labels. With e the mean residual of the
    group's P pairs and s the standard deviation of the other clients' residuals, the strength is e sqrt(P) / s.

    Args:
        updates: (clients, clients), the residual cosines of the updates.
        labels: (clients, clients), those of what shows a client's labels; zeros if nothing does.

    Example:
        Clients 0 and 1 have much in common; clients 2 and 3 have as much, but their labels as well.

        >>> updates, labels = torch.full((6, 6), -0.1), torch.full((6, 6), -0.1)
        >>> updates[0, 1] = updates[1, 0] = updates[2, 3] = updates[3, 2] = labels[2, 3] = labels[3, 2] = 0.8
        >>> updates[4, 5] = updates[5, 4] = 0.1
        >>> most_related(updates, labels).members.tolist()
        [True, True, False, False, False, False]
    """
    seen, explaining = updates.double().cpu(), labels.double().cpu()
    groups = _candidates(seen, explaining)
    nobody = torch.zeros(len(seen), dtype=torch.bool)
    if not len(groups):
        return Relatives(nobody, 0.0, 0.0, torch.zeros(len(seen), dtype=torch.float64))
    strengths = _strengths(groups, seen, explaining)
    best = int(strengths.argmax())
    others = strengths[(groups @ groups[best]) == 0]
    inside = torch.where(groups.T > 0, strengths, -torch.inf).max(dim=1).values.clamp(min=0)
    rival = max(0.0, float(others.max())) if len(others) else 0.0
    return Relatives(groups[best] > 0, float(strengths[best]), rival, inside)


def _candidates(seen: Tensor, explaining: Tensor) -> Tensor:
    """Return the groups of fewer than half of the clients that a clustering of the residuals makes.

    Returns:
        (groups, clients), float64, 1 for the members and 0 for the others.
    """
    clients = len(seen)
    if clients < 4:
        return seen.new_zeros(0, clients)
    pairs = torch.triu_indices(clients, clients, 1)
    x, y = explaining[*pairs], seen[*pairs]
    slope, level = _line(x.new_tensor(len(x)), x.sum(), y.sum(), x.square().sum(), (x * y).sum())
    distances = 1 - (seen - slope * explaining - level).fill_diagonal_(1).clamp(-1, 1)
    steps = linkage(squareform(distances.numpy(), checks=False), "average")
    members = list(torch.eye(clients, dtype=torch.float64))
    for first, second, *_ in steps.tolist():
        members.append(members[int(first)] + members[int(second)])
    merged = torch.stack(members[clients:])
    return merged[merged.sum(dim=1) < clients / 2]


def _strengths(groups: Tensor, seen: Tensor, explaining: Tensor) -> Tensor:
    """Return the strength of each group, (groups,)."""
    outside, inside = [], []
    for values in (torch.ones_like(seen), explaining, seen, explaining**2, explaining * seen, seen**2):
        values = values.clone().fill_diagonal_(0)
        within = ((groups @ values) * groups).sum(dim=1) / 2
        touching = groups @ values.sum(dim=1) - within
        inside.append(within)
        outside.append(values.sum() / 2 - touching)
    number, x, y, xx, xy, yy = outside
    slope, level = _line(number, x, y, xx, xy)
    variance = (yy - level * y - slope * xy) / number.clamp(min=1)
    pairs = inside[0]
    excess = inside[2] / pairs - level - slope * inside[1] / pairs
    strengths = excess * pairs.sqrt() / variance.clamp(min=TINY).sqrt()
    # Where all other pairs are equally similar, there is no unit to compare with.
    return torch.where(variance > TINY, strengths, torch.zeros_like(strengths))


def _line(number: Tensor, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and level of the line of least squares, from the sums over its points; it does not fall."""
    number = number.clamp(min=1)
    spread = xx - x * x / number
    slope = torch.where(spread > TINY, (xy - x * y / number) / spread.clamp(min=TINY), torch.zeros_like(spread))
    slope = slope.clamp(min=0)
    return slope, (y - slope * x) / number
