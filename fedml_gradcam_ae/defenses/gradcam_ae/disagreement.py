"""Evidence of disagreement: heat maps or updates changed in another direction than the others', over some rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    agreement,
    agreement_of_products,
    median_and_spread,
    z_score_exceeded_by,
)

# The figures were measured on development seeds; see docs/research/robust.md.
LARGEST_WEIGHT = 6.0  # A round's weight is clamped to this.
INFORMATIVE = 1.0  # Rounds whose median agreement is below this many MADs add no flags.


class Disagreement(Kind):
    """Minus the robust z-score of the agreement, summed over the last rounds, in units of its threshold.

    A round's weight is the median agreement in MADs, since a round in which benign clients hardly agree is not
    informative. If the scores of clients that move with the common direction and of those that move against it are
    normal with the same spread, the weighted sum is the likelihood ratio between the two.

    A subclass has a `key`, under which its state is saved, a `largest` z-score of one round, a `spared` share of the
    median agreement from which on no client is suspected, and implements `agreement`.

    Args:
        memory: the number of rounds that are summed.
        false_alarm: the share of benign clients that the threshold may flag.
    """

    key: ClassVar[str]
    largest: ClassVar[float]
    spared: ClassVar[float]

    def __init__(self, memory: int, false_alarm: float) -> None:
        self.memory, self.false_alarm = memory, false_alarm
        # By round: its weight (the clients' median agreement in MADs), and each client's z-score.
        self._past: dict[int, tuple[float, dict[ClientId, float]]] = {}

    def agreement(self, observed: Observed, reference: Tensor) -> Tensor:
        """Return the cosine of each client with the mean direction of the other reference clients, (clients,)."""
        raise NotImplementedError

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return int(reference.sum()) >= FEWEST

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        """Score the clients; at most 1 where the round's weight is below `INFORMATIVE`. The state gets the round."""
        agree = self.agreement(observed, reference)
        reference = reference.to(agree.device)
        center, spread = median_and_spread(agree, reference)
        goes_along = agree >= self.spared * center
        scores = ((center - agree) / spread).clamp(-self.largest, self.largest)
        weight = float((center / spread).clamp(0, LARGEST_WEIGHT))
        number = observed.number
        self._past = {past: found for past, found in self._past.items() if number - self.memory < past < number}
        self._past[number] = (weight, dict(zip(observed.clients, scores.tolist(), strict=True)))
        sums = []
        for client in observed.clients:
            seen = [(weight, found[client]) for weight, found in self._past.values() if client in found]
            length = sum(weight**2 for weight, _ in seen) ** 0.5
            sums.append(sum(weight * score for weight, score in seen) / length if length else 0.0)
        # Benign clients differ persistently in their agreement, so their sums spread more than the scores of one round.
        added = torch.tensor(sums, dtype=agree.dtype, device=agree.device)
        center, spread = median_and_spread(added, reference)
        spread = spread.clamp(min=1)
        found = (added - center) / spread / z_score_exceeded_by(self.false_alarm, int(reference.sum()))
        # A round that is not informative must not flag a client for earlier rounds again: the vote would count the
        # same observation several times.
        return found.clamp(max=1).where(goes_along | (weight < INFORMATIVE), found)

    @override
    def state(self) -> dict[str, Any]:
        return {self.key: {number: [weight, dict(scores)] for number, (weight, scores) in self._past.items()}}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self._past = {
            int(number): (weight, dict(scores)) for number, (weight, scores) in state.get(self.key, {}).items()
        }

    @override
    def forget(self, client: ClientId) -> None:
        for _, scores in self._past.values():
            scores.pop(client, None)


class MapDisagreement(Disagreement):
    """For networks without BatchNorm, whose statistics show more: of the changes of heat maps."""

    name = "disagreement"
    reason = "its heat maps changed against the other clients' direction"
    key = "past"
    largest = 6.0
    spared = math.inf

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.native is not None and super().applies(observed, reference)

    @override
    def agreement(self, observed: Observed, reference: Tensor) -> Tensor:
        assert observed.native is not None
        return agreement(observed.native.changes().flatten(1), reference)


class UpdateDisagreement(Disagreement):
    """Of the updates, for every network."""

    name = "directions"
    reason = "its updates do not go the way that the other clients' updates go"
    key = "past_directions"
    largest = 12.0  # Larger than that of maps, since among ten clients the threshold is 7.3.
    spared = 0.5  # With equal data, honest agreements are so near one another that spreads alone accuse some.

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        known = observed.models is not None and observed.models.directions is not None
        return known and super().applies(observed, reference)

    @override
    def agreement(self, observed: Observed, reference: Tensor) -> Tensor:
        models = observed.models
        assert models is not None
        assert models.directions is not None
        return agreement_of_products(models.directions.only(models.judged).updates, reference.cpu())
