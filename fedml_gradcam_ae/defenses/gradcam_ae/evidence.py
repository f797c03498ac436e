"""Kinds of evidence against each client, from one round's uploads and the rounds before.

Source: this project's own; docs/robust.md. Each kind is in units of its own threshold, so that 1 is where suspicion
begins, and a client's score is the largest of them:

* `copies`: its maps resemble another client's more than those of models that were trained apart do;
* `means`, for a network with BatchNorm: the same of the means that its layers produce;
* `errors`: an autoencoder that has seen neither them nor their near relations reconstructs its maps badly;
* `statistics`: the means that its BatchNorm layers hold did not move with its weights; needs no heat map;
* `disagreement`, for a network without BatchNorm: over the last rounds, its maps changed in another direction than
  everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import held_out_reconstructions
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    agreement,
    differences,
    distance_ratios,
    groups,
    in_units_of_mad,
    layer_deviations,
    median,
    median_and_spread,
    tracking,
    tracking_by_chance,
    z_score_exceeded_by,
)
from fedml_gradcam_ae.networks.batchnorm import Statistics
from fedml_gradcam_ae.networks.images import seeded_generator

FEWEST = 4  # clients: the median and the spread of fewer say nothing
NEAR = 1 / 3  # clients nearer than this share of the usual distance are held out together
FAR = 20.0  # times the spread: what lies further out counts as that far
STRONGEST = 6.0  # the z-score beyond which one round says no more about a direction
TELLING = 1.0  # spreads that the clients' agreement must be above 0 for a round to add to what is held against them
ENOUGH = 0.5  # of the usual number of samples: whose statistics show how well one's can follow the weights
FOLLOWING = 0.1  # usual cosines from which they tell anything: at most 0.08 after a single batch, else 0.14 or more
CHANCE = 2.0  # standard deviations of what the cosines of so few channels are by chance, which it must exceed as well
TRACKED = 0.5  # statistics that follow the weights at least this share as well as usual are nobody's fault
REVERSED = 0.5  # statistics that went against the weights, at least this share as far as is usual with them
CLEAR = 3.0  # spreads below the others' median that such statistics must be as well
CHANNELS = 64  # with BatchNorm: the means of fewer leave honest clients near one another by chance
TINY = 1e-12


@dataclass(frozen=True)
class Rules:
    """What `Evidence` has to know; `GradCAMAE.Settings` explains each."""

    false_alarm: float
    copy_ratio: float
    mean_ratio: float
    memory: int
    folds: int
    hidden_size: int
    epochs: int
    learning_rate: float
    weight_decay: float
    seed: int

    @classmethod
    def of(cls, settings: Any) -> Rules:
        """Those of the defense's settings that have these names."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Maps:
    """Heat maps of all classes, signed: of the uploads, and of the global model on the same images.

    Attributes:
        uploads: (clients, images, classes, height, width).
        reference: (images, classes, height, width).
    """

    uploads: Tensor
    reference: Tensor

    @property
    def finite(self) -> Tensor:
        """(clients,), bool."""
        return torch.isfinite(self.uploads).flatten(1).all(dim=1)

    @property
    def comparable(self) -> bool:
        """Whether the global model's own maps are finite."""
        return bool(torch.isfinite(self.reference).all())

    def only(self, clients: Tensor) -> Maps:
        """Those of some clients, (clients,), bool."""
        return Maps(self.uploads[clients], self.reference)

    def changes(self) -> Tensor:
        """See `suspicion.differences`."""
        return differences(self.uploads, self.reference)


@dataclass(frozen=True)
class Findings:
    """About the clients of a round, in order.

    Attributes:
        scores: (clients,), the largest of `parts`.
        parts: by kind of evidence, (clients,).
        deviations: (clients, images, classes, height, width): what the autoencoders reconstruct, in units of the MAD.
        reconstructions: the same shape.
    """

    scores: Tensor
    parts: Mapping[str, Tensor]
    deviations: Tensor
    reconstructions: Tensor


class Evidence:
    """Judges round after round; what it remembers of directions is keyed by client id."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        # By round: how much the clients agreed, and each client's z-score.
        self._past: dict[int, tuple[float, dict[ClientId, float]]] = {}

    def judge(
        self,
        number: int,
        clients: Sequence[ClientId],
        large: Maps,
        native: Maps | Statistics,
        samples: Sequence[float] | None = None,
    ) -> Findings:
        """Score a round.

        Args:
            number: the round, from 1.
            clients: their ids.
            large: finite maps with several positions, for copies and errors.
            native: what images of the size that the network is trained on show: statistics if it has any, else maps.
            samples: how many each claims; None: all as many.
        """
        changes = large.changes()
        nobody = changes.new_zeros(len(changes))
        third = "statistics" if isinstance(native, Statistics) else "disagreement"
        parts = {"copies": nobody, "errors": nobody, third: nobody}
        deviations = reconstructions = torch.zeros_like(changes)
        ratios = distance_ratios(changes.flatten(1)) if len(clients) > 1 else changes.new_zeros(1, 1)
        nearest = ratios.min(dim=1).values
        if int(torch.isfinite(nearest).sum()) >= FEWEST:  # infinite where most clients uploaded the same
            parts["copies"] = copy_scores(nearest, self.rules.copy_ratio)
            trusted = nearest >= self.rules.copy_ratio
            if isinstance(native, Statistics) and self.rules.mean_ratio and len(native.layers) >= CHANNELS:
                by_means = distance_ratios(layer_deviations(native.measured, native.layers)).min(dim=1).values
                parts["means"] = copy_scores(by_means, self.rules.mean_ratio)
                trusted = trusted & (by_means >= self.rules.mean_ratio)
            if int(trusted.sum()) >= FEWEST:  # else a crowd of copies has nobody beside it to be compared with
                deviations = in_units_of_mad(changes.flatten(2), trusted, FAR)
                reconstructions = self._reconstruct(deviations, trusted, ratios < NEAR, number)
                parts["errors"] = self._errors(deviations - reconstructions, trusted)
                if isinstance(native, Statistics):
                    parts[third] = self._statistics(native, samples, trusted)
                else:
                    parts[third] = self._disagreement(number, clients, native, trusted)
        scores = torch.stack(list(parts.values())).max(dim=0).values
        return Findings(scores, parts, deviations.view_as(changes), reconstructions.view_as(changes))

    def state(self) -> dict[str, Any]:
        """What must outlive the process."""
        return {"past": {number: [weight, dict(scores)] for number, (weight, scores) in self._past.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._past = {int(number): (weight, dict(scores)) for number, (weight, scores) in state["past"].items()}

    def forget(self, client: ClientId) -> None:
        """Drop what was held against a client."""
        for _, scores in self._past.values():
            scores.pop(client, None)

    def _reconstruct(self, deviations: Tensor, trusted: Tensor, near: Tensor, number: int) -> Tensor:
        """Each client's maps by an autoencoder that knows neither them nor those of its near relations."""
        rules = self.rules
        held = folds(groups(near), trusted, rules.folds)
        if held is None:
            return torch.zeros_like(deviations)  # nobody is left to learn from: the error is the deviation itself
        return held_out_reconstructions(
            deviations.float(),
            held,
            hidden=rules.hidden_size,
            epochs=rules.epochs,
            learning_rate=rules.learning_rate,
            weight_decay=rules.weight_decay,
            generator=seeded_generator(rules.seed, 1, number),
        ).to(deviations)

    def _errors(self, residuals: Tensor, trusted: Tensor) -> Tensor:
        """The robust z-score of the logarithm of (14), in units of its threshold."""
        errors = residuals.abs().mean(dim=(1, 2)).clamp(min=TINY).log()
        center, spread = median_and_spread(errors, trusted)
        return (errors - center) / spread / z_score_exceeded_by(self.rules.false_alarm, int(trusted.sum()))

    def _disagreement(self, number: int, clients: Sequence[ClientId], native: Maps, trusted: Tensor) -> Tensor:
        """Minus the robust z-score of the agreement, over the last rounds, in units of its threshold.

        A round in which honest clients hardly agree tells nothing, so a round's weight is how many spreads the
        agreement is above zero. With normal scores of the same spread for those who go with the others' direction and
        those who go against it, that makes the weighted sum the likelihood ratio between the two.
        """
        agree = agreement(native.changes().flatten(1), trusted)
        center, spread = median_and_spread(agree, trusted)
        scores = ((center - agree) / spread).clamp(-STRONGEST, STRONGEST)
        weight = float((center / spread).clamp(0, STRONGEST))
        self._past = {past: found for past, found in self._past.items() if number - self.rules.memory < past < number}
        self._past[number] = (weight, dict(zip(clients, scores.tolist(), strict=True)))
        sums = []
        for client in clients:
            seen = [(weight, found[client]) for weight, found in self._past.values() if client in found]
            length = sum(weight**2 for weight, _ in seen) ** 0.5
            sums.append(sum(weight * score for weight, score in seen) / length if length else 0.0)
        # Honest clients differ in how far they go along, round after round, so their sums spread more than one round's.
        added = torch.tensor(sums, dtype=agree.dtype, device=agree.device)
        center, spread = median_and_spread(added, trusted)
        spread = spread.clamp(min=1)
        found = (added - center) / spread / z_score_exceeded_by(self.rules.false_alarm, int(trusted.sum()))
        # What earlier rounds held against a client is not held against it again by one that has nothing to add: the
        # vote would take one observation for several.
        return found if weight >= TELLING else found.clamp(max=1)

    def _statistics(self, found: Statistics, samples: Sequence[float] | None, trusted: Tensor) -> Tensor:
        """Whose statistics follow the weights less than half as well as usual, or went against them.

        The former by the robust z-score of `tracking`, in units of its threshold. A client with few samples has trained
        for few batches, and statistics follow the weights from the second on: it is compared with the others, but no
        other with it, and its score is as much smaller as it has fewer. What went against the weights, half as far as
        is usual with them, was not trained, whatever the data: a much lower z-score will do.

        Reversed updates have the cosines of honest ones with the other sign. What is usual is taken of their sizes,
        which does not depend on how many are reversed: these would widen a spread of the cosines themselves.
        """
        tracked = tracking(found.measured, found.stored, found.layers, trusted)
        share = torch.ones_like(tracked)
        if samples is not None:
            claimed = torch.tensor(samples, dtype=tracked.dtype, device=tracked.device)
            share = (claimed / median(claimed).clamp(min=TINY)).clamp(max=1)
        peers = trusted & (share >= ENOUGH)
        peers = peers if int(peers.sum()) >= FEWEST else trusted
        center, spread = median_and_spread(tracked.abs(), peers)
        if center < max(FOLLOWING, CHANCE * tracking_by_chance(found.layers)) or median(tracked[peers]) <= 0:
            return torch.zeros_like(tracked)  # nobody's statistics tell anything
        spreads, follows = (center - tracked) / spread, tracked / center
        beyond = spreads / z_score_exceeded_by(self.rules.false_alarm, int(peers.sum()))
        behind = torch.minimum(beyond, (1 - follows) / (1 - TRACKED)) * share
        against = torch.minimum(spreads / CLEAR, -follows / REVERSED)
        return torch.maximum(behind, against)


def copy_scores(nearest: Tensor, copy_ratio: float) -> Tensor:
    """How near each client is to the next, (clients,): 0 at the usual distance or beyond, 1 at `copy_ratio` of it.

    Args:
        nearest: (clients,), the least of each one's `distance_ratios`.
        copy_ratio: below 1.
    """
    return nearest.clamp(1e-9, 1).log() / torch.tensor(copy_ratio, dtype=torch.float32).log()


def folds(together: Sequence[Sequence[int]], trusted: Tensor, most: int) -> Tensor | None:
    """Who is held out by which autoencoder: (folds, clients), bool; None if there is nobody to learn from.

    The clients of a group are held out together, and those that are not trusted are never learned from.

    Args:
        together: groups of clients, each client in one.
        trusted: (clients,), bool.
        most: how many folds there may be.
    """
    number = min(most, sum(bool(trusted[list(group)].any()) for group in together))
    if number < 2:
        return None
    held = (~trusted).repeat(number, 1)
    sizes = [0] * number
    for group in sorted(together, key=len, reverse=True):
        fold = sizes.index(min(sizes))
        sizes[fold] += int(trusted[list(group)].sum())
        held[fold, list(group)] = True
    return held
