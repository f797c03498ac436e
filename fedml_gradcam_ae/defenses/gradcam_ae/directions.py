"""Evidence of directions: a client's updates do not go along with the other clients' updates, over some rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import agreement, median_and_spread, z_score_exceeded_by

# The figures were measured on development seeds; see docs/research/robust.md.
LARGEST_Z_SCORE = 12.0  # The z-scores of one round are clamped to this; among ten clients the threshold is 7.3.
LARGEST_WEIGHT = 6.0  # A round's weight is clamped to this.
INFORMATIVE = 1.0  # Rounds whose median agreement is below this many MADs add no flags.
SPARED = 0.5  # With equal data, honest agreements are so near one another that spreads alone would accuse some.


class Disagreement(Kind):
    """Minus the robust z-score of the agreement, summed over the last rounds, in units of its threshold.

    The agreement is the cosine of a client's update with the mean direction of the others'. A round's weight is the
    median agreement in MADs, since a round in which benign clients hardly agree is not informative. If the scores of
    clients that move with the common direction and of those that move against it are normal with the same spread, the
    weighted sum is the likelihood ratio between the two. A client with at least half of the median agreement is not
    suspected.

    Args:
        memory: the number of rounds that are summed.
        false_alarm: the share of benign clients that the threshold may flag.
    """

    name = "directions"
    reason = "its updates do not go the way that the other clients' updates go"

    def __init__(self, memory: int, false_alarm: float) -> None:
        self.memory, self.false_alarm = memory, false_alarm
        # By round: its weight (the clients' median agreement in MADs), and each client's z-score.
        self._past: dict[int, tuple[float, dict[ClientId, float]]] = {}

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.directions is not None and int(reference.sum()) >= FEWEST

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        """Score the clients; at most 1 where the round's weight is below `INFORMATIVE`. The state gets the round."""
        assert observed.directions is not None
        reference = reference.cpu()
        agree = agreement(observed.directions.updates, reference)
        center, spread = median_and_spread(agree, reference)
        goes_along = agree >= SPARED * center
        scores = ((center - agree) / spread).clamp(-LARGEST_Z_SCORE, LARGEST_Z_SCORE)
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
        added = torch.tensor(sums, dtype=agree.dtype)
        center, spread = median_and_spread(added, reference)
        spread = spread.clamp(min=1)
        found = (added - center) / spread / z_score_exceeded_by(self.false_alarm, int(reference.sum()))
        # A round that is not informative must not flag a client for earlier rounds again: the vote would count the
        # same observation several times.
        return found.clamp(max=1).where(goes_along | (weight < INFORMATIVE), found)

    @override
    def state(self) -> dict[str, Any]:
        return {"directions": {number: [weight, dict(scores)] for number, (weight, scores) in self._past.items()}}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self._past = {
            int(number): (weight, dict(scores)) for number, (weight, scores) in state.get("directions", {}).items()
        }

    @override
    def forget(self, client: ClientId) -> None:
        for _, scores in self._past.values():
            scores.pop(client, None)
