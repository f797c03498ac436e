"""The kinds of evidence against each client, from one round's uploads and the rounds before.

Source: this project's own; docs/robust.md. Each kind is in units of its own threshold, so that suspicion begins above
1, and a client's score is the largest of them:

* `copies`: the client's heat maps are closer to another client's than those of independently trained models are;
* `means`, for a network with BatchNorm: the same for the channel means that the network's layers produce;
* `errors`: an autoencoder trained on neither these maps nor similar ones reconstructs the client's maps badly;
* `statistics`, for a network with BatchNorm: the running means did not move with the weights; needs no heat map;
* `disagreement`, for a network without BatchNorm: over the last rounds, the client's maps changed in another direction
  than those of the other clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.autoencoder import held_out_reconstructions
from fedml_gradcam_ae.defenses.gradcam_ae.kinds import Kind
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

# The figures were measured on development seeds; see docs/research/robust.md. A MAD is scaled to a standard deviation.
FEWEST = 4  # With fewer clients to compare with, no client is judged: their median and MAD are too uncertain.
NEAR = 1 / 3  # Clients nearer to each other than this fraction of the median distance are held out together.
FAR = 20.0  # Deviations are clamped to this many MADs.
STRONGEST = 6.0  # The z-scores of one round's agreement, and the round's weight, are clamped to this.
TELLING = 1.0  # Rounds whose median agreement is below this many MADs add no flags for disagreement.
ENOUGH = 0.5  # Clients with less than this fraction of the median samples are no part of `statistics`' reference set.
FOLLOWING = 0.1  # Minimum median of the absolute tracking to be informative: 0.08 at most for one batch, else >= 0.14.
CHANCE = 2.0  # That median must also exceed this many standard deviations of the cosines of unrelated channels.
TRACKED = 0.5  # Clients whose tracking is at least this fraction of the median are never flagged for `statistics`.
REVERSED = 0.5  # Clients whose tracking is below minus this fraction of the median count as reversed ...
CLEAR = 3.0  # ... if their tracking is also this many MADs below the median.
CHANNELS = 64  # Networks with fewer BatchNorm channels are not checked for `means`: they are similar by chance.
TINY = 1e-12  # The smallest divisor.


@dataclass(frozen=True)
class Rules:
    """The settings that `Evidence` needs; `GradCAMAE.Settings` explains each of them."""

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
        """Return the rules, with the values of the same names in the defense's settings."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Maps:
    """The signed heat maps of all classes, of the uploads and of the global model on the same images.

    Attributes:
        uploads: (clients, images, classes, height, width).
        reference: (images, classes, height, width), of the global model.
    """

    uploads: Tensor
    reference: Tensor

    @property
    def finite(self) -> Tensor:
        """Whether each upload's maps are finite, (clients,), bool."""
        return torch.isfinite(self.uploads).flatten(1).all(dim=1)

    @property
    def comparable(self) -> bool:
        """Whether the global model's own maps are finite."""
        return bool(torch.isfinite(self.reference).all())

    def only(self, clients: Tensor) -> Maps:
        """Return the maps of the clients selected by a mask (clients,), bool."""
        return Maps(self.uploads[clients], self.reference)

    def changes(self) -> Tensor:
        """Return the differences between the uploads' maps and the global model's; see `suspicion.differences`."""
        return differences(self.uploads, self.reference)


@dataclass(frozen=True)
class Findings:
    """The evidence about the clients of a round.

    Attributes:
        scores: (clients,), the largest of `parts`.
        parts: by kind of evidence, (clients,).
        deviations: (clients, images, classes, height, width), the autoencoders' input, in units of the MAD.
        reconstructions: (clients, images, classes, height, width), the autoencoders' output.
    """

    scores: Tensor
    parts: Mapping[Kind, Tensor]
    deviations: Tensor
    reconstructions: Tensor


class Evidence:
    """The scores of the `robust` profile; the state, past z-scores of the agreement, is keyed by client id.

    Args:
        rules: thresholds and the autoencoder's settings.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        # By round: its weight (the clients' median agreement in MADs), and each client's z-score.
        self._past: dict[int, tuple[float, dict[ClientId, float]]] = {}

    def judge(
        self,
        number: int,
        clients: Sequence[ClientId],
        large: Maps,
        native: Maps | Statistics,
        samples: Sequence[float] | None = None,
    ) -> Findings:
        """Score the clients of a round.

        Args:
            number: the round, from 1.
            clients: the clients' ids.
            large: finite maps with several positions, for `copies` and `errors`.
            native: of images in the size that the network is trained on: BatchNorm's statistics if the network has
                them, else finite heat maps.
            samples: the number of samples that each client claims; None: the same for all.
        """
        changes = large.changes()
        nobody = changes.new_zeros(len(changes))
        third = Kind.STATISTICS if isinstance(native, Statistics) else Kind.DISAGREEMENT
        parts = {Kind.COPIES: nobody, Kind.ERRORS: nobody, third: nobody}
        deviations = reconstructions = torch.zeros_like(changes)
        ratios = distance_ratios(changes.flatten(1)) if len(clients) > 1 else changes.new_zeros(1, 1)
        nearest = ratios.min(dim=1).values
        if int(torch.isfinite(nearest).sum()) >= FEWEST:  # infinite if a client's median distance to the others is 0
            parts[Kind.COPIES] = copy_scores(nearest, self.rules.copy_ratio)
            trusted = nearest >= self.rules.copy_ratio
            if isinstance(native, Statistics) and self.rules.mean_ratio and len(native.layers) >= CHANNELS:
                by_means = distance_ratios(layer_deviations(native.measured, native.layers)).min(dim=1).values
                parts[Kind.MEANS] = copy_scores(by_means, self.rules.mean_ratio)
                trusted = trusted & (by_means >= self.rules.mean_ratio)
            if int(trusted.sum()) >= FEWEST:  # else nearly all clients are copies, and the reference set is too small
                deviations = in_units_of_mad(changes.flatten(2), trusted, FAR)
                reconstructions = self._reconstruct(deviations, trusted, ratios < NEAR, number)
                parts[Kind.ERRORS] = self._errors(deviations - reconstructions, trusted)
                if isinstance(native, Statistics):
                    parts[third] = self._statistics(native, samples, trusted)
                else:
                    parts[third] = self._disagreement(number, clients, native, trusted)
        scores = torch.stack(list(parts.values())).max(dim=0).values
        return Findings(scores, parts, deviations.view_as(changes), reconstructions.view_as(changes))

    def state(self) -> dict[str, Any]:
        """Return the state to save: the weight and the z-scores of each past round."""
        return {"past": {number: [weight, dict(scores)] for number, (weight, scores) in self._past.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._past = {int(number): (weight, dict(scores)) for number, (weight, scores) in state["past"].items()}

    def forget(self, client: ClientId) -> None:
        """Forget a client's z-scores of past rounds."""
        for _, scores in self._past.values():
            scores.pop(client, None)

    def _reconstruct(self, deviations: Tensor, trusted: Tensor, near: Tensor, number: int) -> Tensor:
        """Reconstruct each client's maps by an autoencoder trained on neither them nor the maps of similar clients.

        Args:
            deviations: (clients, images, numbers), in units of the MAD.
            trusted: (clients,), bool: the reference set.
            near: (clients, clients), bool: the pairs that are held out together.
            number: the round, which seeds the initial weights.

        Returns:
            (clients, images, numbers); 0 where there are fewer than two folds.
        """
        rules = self.rules
        held = folds(groups(near), trusted, rules.folds)
        if held is None:
            return torch.zeros_like(deviations)  # no client is left to train on: the error is the deviation itself
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
        """Return the robust z-score of the logarithm of the reconstruction error (14), in units of its threshold.

        Args:
            residuals: (clients, images, numbers), maps less reconstructions.
            trusted: (clients,), bool: the reference set.

        Returns:
            (clients,).
        """
        errors = residuals.abs().mean(dim=(1, 2)).clamp(min=TINY).log()
        center, spread = median_and_spread(errors, trusted)
        return (errors - center) / spread / z_score_exceeded_by(self.rules.false_alarm, int(trusted.sum()))

    def _disagreement(self, number: int, clients: Sequence[ClientId], native: Maps, trusted: Tensor) -> Tensor:
        """Return minus the robust z-score of the agreement, summed over the last rounds, in units of its threshold.

        A round's weight is the median agreement in MADs, since a round in which benign clients hardly agree is not
        informative. If the scores of clients that move with the common direction and of those that move against it are
        normal with the same spread, the weighted sum is the likelihood ratio between the two.

        Args:
            number: the round, from 1; its z-scores are added to the state.
            clients: the clients' ids.
            native: heat maps of images in their own size.
            trusted: (clients,), bool: the reference set.

        Returns:
            (clients,), at most 1 where the round's weight is below `TELLING`.
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
        # Benign clients differ persistently in their agreement, so their sums spread more than the scores of one round.
        added = torch.tensor(sums, dtype=agree.dtype, device=agree.device)
        center, spread = median_and_spread(added, trusted)
        spread = spread.clamp(min=1)
        found = (added - center) / spread / z_score_exceeded_by(self.rules.false_alarm, int(trusted.sum()))
        # A round that is not informative must not flag a client for earlier rounds again: the vote would count the
        # same observation several times.
        return found if weight >= TELLING else found.clamp(max=1)

    def _statistics(self, found: Statistics, samples: Sequence[float] | None, trusted: Tensor) -> Tensor:
        """Score statistics that track the weights less than half as well as the median, or that went against them.

        The former score is the robust z-score of `tracking`, in units of its threshold, scaled by
        samples / median(samples), at most 1, since statistics follow the weights only from a client's second batch on.
        For the same reason, clients with less than half of the median samples are no part of the reference set.
        Statistics that went against the weights by half of the median or more do not come from training, whatever the
        data, so that a much lower z-score is enough.

        Reversed updates have the cosines of benign ones with the opposite sign. Median and MAD are those of the
        absolute cosines, which do not depend on the number of reversed updates; they would widen the spread of the
        signed cosines.

        Args:
            found: the stored and the measured means.
            samples: the number of samples that each client claims; None: the same for all.
            trusted: (clients,), bool: the clients that may be in the reference set.

        Returns:
            (clients,), in units of the threshold; 0 where the median tracking is too low to be informative.
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
            return torch.zeros_like(tracked)  # the statistics of this round are not informative
        spreads, follows = (center - tracked) / spread, tracked / center
        beyond = spreads / z_score_exceeded_by(self.rules.false_alarm, int(peers.sum()))
        behind = torch.minimum(beyond, (1 - follows) / (1 - TRACKED)) * share
        against = torch.minimum(spreads / CLEAR, -follows / REVERSED)
        return torch.maximum(behind, against)


def copy_scores(nearest: Tensor, copy_ratio: float) -> Tensor:
    """Return log(nearest) / log(copy_ratio): 0 at the median distance or beyond, 1 at `copy_ratio` of it.

    Args:
        nearest: (clients,), each client's smallest `distance_ratios`; clamped to [1e-9, 1].
        copy_ratio: the ratio below which a client is suspected, below 1.

    Returns:
        (clients,), in units of the threshold.

    Example:
        >>> copy_scores(torch.tensor([0.9, 0.2, 0.02]), copy_ratio=0.2)
        tensor([0.0655, 1.0000, 2.4307])
    """
    return nearest.clamp(1e-9, 1).log() / torch.tensor(copy_ratio, dtype=torch.float32).log()


def folds(together: Sequence[Sequence[int]], trusted: Tensor, most: int) -> Tensor | None:
    """Return the clients that each fold's autoencoder is not trained on.

    The clients of a group are held out together. Clients that are not trusted are held out by all folds.

    Args:
        together: groups of clients, each client in exactly one.
        trusted: (clients,), bool.
        most: the largest number of folds.

    Returns:
        (folds, clients), bool; None if there are fewer than two groups with a trusted client.

    Example:
        >>> folds([[0, 1], [2], [3]], trusted=torch.tensor([True, True, True, False]), most=5)
        tensor([[ True,  True, False,  True],
                [False, False,  True,  True]])
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
