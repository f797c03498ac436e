"""Evidence of relations: several updates have more in common than the labels of their clients explain."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Directions, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.relatives import most_related, residual_cosines
from fedml_gradcam_ae.defenses.shared.output_layer import output_layer
from fedml_gradcam_ae.networks.images import seeded_generator

COORDINATES = 2**16  # The updates of larger networks are compared in so many coordinates, drawn anew each round.
FEWEST_CLIENTS = 8  # Among fewer clients, a pair of independent updates is often as striking as attackers are.
RIVAL = 1.5  # A group is suspected if it is so many times as striking as the most striking group of other clients.
LARGER = 2.0  # Clients with more data than others have less noise and so more in common: their threshold is larger.
# The strength that the most striking group of independent updates exceeds in one of a hundred rounds, by the number of
# clients: from simulated rounds, which tests/test_relatives.py repeats.
BY_CHANCE = {8: 4.7, 10: 4.1, 15: 4.3, 20: 4.5, 30: 5.2, 50: 6.5, 100: 8.5, 300: 13.7}


def directions_of(round: Round, seed: int) -> Directions:
    """Return the inner products of a round's updates, and of what their output layers show of the clients' labels.

    The gradient of an output layer's bias is the difference between predicted and true labels, so its change shows
    which classes a client has many images of. Without a bias, the sum of each class's weights takes its place.

    Args:
        round: with at least one upload.
        seed: draws the coordinates, with the number of the round.
    """
    updates = round.updates
    if updates.size > 4 * COORDINATES:
        generator = seeded_generator(seed, 9, round.number)
        chosen = torch.unique(torch.randint(updates.size, (COORDINATES,), generator=generator))
        sampled = updates.sample(chosen)
        products = sampled @ sampled.T
    else:
        products = updates.gram
    tensors = [(name, round.global_model[name]) for name in output_layer(round.network, round.parameters)]
    name, like = min(tensors, key=lambda tensor: tensor[1].dim())
    changes = torch.stack([upload[name].double() - like.double() for upload in round.uploads])
    shifts = changes.flatten(2).sum(dim=2) if like.dim() > 1 else changes
    return Directions(products, shifts @ shifts.T)


class Relations(Kind):
    """A group of fewer than half of the clients whose updates have more in common than labels explain.

    The group that is most striking (`relatives.most_related`) is suspected if its strength exceeds what independent
    updates reach by chance, and is well above that of every group of other clients: where the clients' data differ, all
    have relatives. Then the clients that are left are judged in the same way.
    """

    name = "relations"
    reason = "its update has more in common with some others than their labels explain"

    def __init__(self, margin: float) -> None:
        self.margin = margin

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.directions is not None

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        assert observed.directions is not None
        samples = torch.tensor(observed.samples, dtype=torch.float64)
        return relation_scores(observed.directions, self.margin, samples)


def relation_scores(directions: Directions, margin: float, samples: Tensor) -> Tensor:
    """Return each client's score, in units of the threshold.

    Args:
        directions: of the clients to compare.
        margin: see `Relations`.
        samples: (clients,), the samples that each client claims.

    Returns:
        (clients,), float64, on the CPU: above 1 for the members of suspected groups, at most 1 for the others.

    Example:
        Three of twenty clients do the same thing, beside what each of them does on its own:

        >>> generator = torch.Generator().manual_seed(0)
        >>> updates, labels = torch.randn(20, 300, generator=generator), torch.randn(20, 10, generator=generator)
        >>> updates[:3] += torch.randn(300, generator=generator)
        >>> scores = relation_scores(Directions(updates @ updates.T, labels @ labels.T), 2.2, torch.ones(20))
        >>> scores.gt(1).nonzero()[:, 0].tolist()
        [0, 1, 2]
    """
    scores = torch.zeros(len(directions.updates), dtype=torch.float64)
    # An update of length 0 has as much in common with any other, so that it could bring others under suspicion.
    left = directions.updates.diagonal().cpu().nonzero()[:, 0]
    while len(left) >= FEWEST_CLIENTS:
        here = directions.only(left)
        found = most_related(residual_cosines(here.updates), residual_cosines(here.labels))
        threshold = margin * by_chance(len(left)) * _larger(samples[left], found.members)
        score = min(found.strength / threshold, found.strength / max(found.rival * RIVAL, 1e-12))
        if score > 1:
            scores[left[found.members]] = score
            left = left[~found.members]
        else:
            scores[left] = (found.strengths / threshold).clamp(max=1)
            break
    return scores


def _larger(samples: Tensor, members: Tensor) -> float:
    """Return how many times as many samples as the others the group claims, at least 1 and at most `LARGER`."""
    if not bool(members.any()):
        return 1.0
    return min(max(float(samples[members].median() / samples[~members].median()), 1.0), LARGER)


def by_chance(clients: int) -> float:
    """Return the strength that the most striking group of independent updates exceeds in one of a hundred rounds.

    Between the numbers of clients of `BY_CHANCE`, it is interpolated in their logarithm; above, it grows as their root.

    Args:
        clients: at least `FEWEST_CLIENTS`.

    Example:
        >>> by_chance(20), by_chance(1200)
        (4.5, 27.4)
    """
    largest = max(BY_CHANCE)
    if clients > largest:
        return BY_CHANCE[largest] * math.sqrt(clients / largest)
    return float(np.interp(np.log(clients), np.log(list(BY_CHANCE)), list(BY_CHANCE.values())))
