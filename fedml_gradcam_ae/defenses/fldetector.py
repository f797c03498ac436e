"""FLDetector: leave out the clients whose updates do not follow from their own earlier updates.

Source: Zhang, Cao, Jia and Gong, "FLDetector: Defending Federated Learning Against Model Poisoning Attacks via
Detecting Malicious Clients", KDD 2022, arXiv 2207.09209. The paper stops the training at a detection, removes the
detected clients and starts over from the first model. A running federation cannot start over, so here the detected
clients are left out of the round, and with `permanent` of all later rounds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.shared.update_history import UpdateHistory
from fedml_gradcam_ae.maths.gap_statistic import count_clusters
from fedml_gradcam_ae.maths.kmeans_1d import two_means
from fedml_gradcam_ae.networks.images import seeded_generator

_MOST_CLUSTERS = 7  # the largest number of clusters that the gap statistic considers


@register_defense("fldetector")
class FLDetector(Defense):
    """The average without the cluster of clients whose updates are furthest from their predictions.

    A client's distance in a round is ||predicted - u_i||, divided by the mean of these distances over the round's
    clients. (The paper divides by the sum, which would give rounds with fewer clients more weight.) Its score is the
    mean of its distances in its last N predicted rounds; 1 is usual. If the gap statistic finds more than one cluster
    of scores, the upper of two clusters is left out. All clients are kept until N rounds were predicted, which takes
    N + 2 rounds, and before `start_round`. A client without a prediction is kept; it gets the mean score of the kept
    clients.
    State: that of `UpdateHistory`, and the last N distances of each client.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.fldetector import FLDetector
        >>> detector = FLDetector(FLDetector.Settings(window=1))
        >>> for number, last in [(1, 1.3), (2, 1.3), (3, 9.0)]:
        ...     updates = (1.0, 1.1, 1.2, 1.15, last)  # client 5 turns malicious in round 3
        ...     round = Round(
        ...         number=number,
        ...         client_ids=[1, 2, 3, 4, 5],
        ...         uploads=[{"weight": torch.tensor([[number + update]])} for update in updates],
        ...         samples=[10.0] * 5,
        ...         global_model={"weight": torch.tensor([[float(number)]])},
        ...         network=torch.nn.Linear(1, 1, bias=False),
        ...         test_data=[],
        ...     )
        ...     verdict = detector.judge(round)
        >>> verdict.excluded
        [False, False, False, False, True]
    """

    class Settings(DefenseSettings):
        """The settings of FLDetector; the defaults are those of the published code."""

        window: int = Field(
            default=10,
            ge=1,
            description="N, the number of past rounds that a prediction and a score are computed from (rounds)",
        )
        start_round: int = Field(
            default=1, ge=1, description="the first round in which clients may be left out, but not before round N + 2"
        )
        references: int = Field(default=10, ge=1, description="number of uniform reference sets for the gap statistic")
        permanent: bool = Field(default=False, description="whether a detected client is left out of all later rounds")
        seed: int = Field(default=0, ge=0, description="seed of the uniform reference sets")

    settings: Settings
    remembers_clients = True

    def __init__(self, settings: FLDetector.Settings | None = None) -> None:
        super().__init__(settings)
        self.removed: dict[ClientId, int] = {}
        self._history = UpdateHistory(self.settings.window)
        self._distances: dict[ClientId, list[float]] = {}
        self._predicted_rounds = 0

    @override
    def judge(self, round: Round) -> Verdict:
        """Score clients by their distance to the prediction, leave out the detected ones and record the round."""
        self._note(self._history.prediction_errors(round))
        own = {
            client: math.fsum(found) / len(found)
            for client in round.client_ids
            if client not in self.removed and (found := self._distances.get(client))
        }
        threshold = self._threshold(own, round.number)
        detected = {client for client, score in own.items() if threshold is not None and score > threshold}
        if self.settings.permanent:
            self.removed = {**dict.fromkeys(detected, round.number), **self.removed}
        excluded = [client in detected or client in self.removed for client in round.client_ids]
        weights = sample_weights(round.samples, excluded)
        if any(weights):
            self._history.record(round, weights)
        kept = [score for client, score in own.items() if client not in detected]
        usual = math.fsum(kept) / len(kept) if kept else 1.0
        gone = {client: past for client, past in self.removed.items() if past < round.number}
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            weights=weights,
            scores=[math.inf if client in gone else own.get(client, usual) for client in round.client_ids],
            threshold=threshold,
            reasons={
                client: f"detected in round {gone[client]}, for good" for client in round.client_ids if client in gone
            },
        )

    @override
    def release(self, client: ClientId) -> None:
        """Take back a client's permanent removal and forget its past distances."""
        self.removed.pop(client, None)
        self._distances.pop(client, None)

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save; it shares tensors that later rounds change in place."""
        return {
            "history": self._history.state(),
            "distances": {client: list(found) for client, found in self._distances.items()},
            "predicted_rounds": self._predicted_rounds,
            "removed": dict(self.removed),
        }

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._history.restore(state["history"])
        self._distances = {client: list(found) for client, found in state["distances"].items()}
        self._predicted_rounds = int(state["predicted_rounds"])
        self.removed = dict(state["removed"])

    def _note(self, errors: dict[ClientId, float]) -> None:
        """Divide a round's distances by their mean and add them to those of the last rounds."""
        errors = {client: distance for client, distance in errors.items() if client not in self.removed}
        if not errors:
            return
        self._predicted_rounds += 1
        mean = math.fsum(errors.values()) / len(errors)
        for client, distance in errors.items():
            relative = distance / mean if mean > 0 else 1.0
            self._distances[client] = [*self._distances.get(client, []), relative][-self.settings.window :]

    def _threshold(self, scores: dict[ClientId, float], number: int) -> float | None:
        """Return the threshold halfway between the two cluster centers; None where no client is to be left out."""
        settings = self.settings
        if not scores or self._predicted_rounds < settings.window or number < settings.start_round:
            return None
        values = torch.tensor(list(scores.values()), dtype=torch.float64)
        generator = seeded_generator(settings.seed, number)
        if count_clusters(values, _MOST_CLUSTERS, settings.references, generator) == 1:
            return None
        found = two_means(values[:, None])
        return float(found.low_center + found.high_center) / 2
