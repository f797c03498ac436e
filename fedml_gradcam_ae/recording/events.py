"""What happened in each round, for whoever wants to know: listeners get it as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedml_gradcam_ae.contract.upload import ClientId

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ClientReport:
    """One client in one round.

    Attributes:
        client: its id.
        samples: the number of samples that it claims; NaN where it sent no number of samples.
        score: suspicion, higher is worse; None without a scoring defense, infinite for an unusable upload.
        flagged: this round's flag; None without a defense that tells clients apart.
        excluded: whether the aggregation leaves it out.
        weight: in the aggregate; None where the rule makes a model of its own.
        malicious: the truth in a simulation; None where it is not known. No defense ever sees it.
        reason: why it was left out other than by its score.
        counted: the number of samples that its claim counts as, where the claim is too large.
        shortened: how many tensors of its upload were kept, but pulled toward the global model (`Round.bounded`).
    """

    client: ClientId
    samples: float
    score: float | None = None
    flagged: bool | None = None
    excluded: bool | None = None
    weight: float | None = None
    malicious: bool | None = None
    reason: str | None = None
    counted: float | None = None
    shortened: int = 0


@dataclass(frozen=True)
class Watched:
    """What a detector that does not act said of a round; lists run over `RoundReport.clients`.

    Attributes: as of `federation.Verdict`; an unusable upload has an infinite score and is flagged and excluded.
    """

    scores: Sequence[float] | None
    flagged: Sequence[bool] | None
    excluded: Sequence[bool] | None
    threshold: float | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class RoundReport:
    """A round that was just aggregated.

    Attributes:
        number: the round, from 1.
        clients: one report per upload, in their order.
        threshold: of the scores, if the defense has one.
        seconds: time that the defense took, by stage; empty without one.
        global_model_stays: whether nobody was left to aggregate.
        evidence: tensors for pictures, their first dimension running over `judged`.
        judged: the clients that the defense judged: those with a usable upload.
        watched: what detectors that do not act said, by their name.
        notes: what else there is to say, in a line each: claims that count for less, for instance.
    """

    number: int
    clients: Sequence[ClientReport]
    threshold: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    global_model_stays: bool = False
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    judged: Sequence[ClientId] = ()
    watched: Mapping[str, Watched] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Measured:
    """Metrics that FedML measured after a round, under FedML's names ("Test/Acc", "Train/Loss", ...)."""

    number: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Tested:
    """FedML has just tested the new global model, in the single-process simulator.

    Attributes:
        number: the round, from 1.
        network: what was tested, with the new weights in it: the network, or several of them that vote. It is FedML's
            own, on its device: look, but leave it as it is.
    """

    number: int
    network: nn.Module


Event = RoundReport | Measured | Tested
Listener = Callable[[Event], None]

_listeners: list[Listener] = []


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Call these with every event while the block runs."""
    _listeners.extend(listeners)
    try:
        yield
    finally:
        for listener in listeners:
            _listeners.remove(listener)


def publish(event: Event) -> None:
    """Tell every listener."""
    for listener in list(_listeners):
        listener(event)
