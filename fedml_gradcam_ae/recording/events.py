"""Events of a run, published to listeners as they happen: reports of rounds, metrics, tests."""

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
    """Report of one client in one round.

    Attributes:
        client: the client's id.
        samples: the number of samples that the client claims; NaN if its claim cannot be used as a number.
        score: the suspicion score, higher is worse; None without a scoring defense, infinite for an unusable upload.
        flagged: the defense's flag of this round; True for an unusable upload; None without a defense that judges
            clients one by one.
        excluded: whether the upload is left out of the aggregate; None likewise.
        weight: the upload's weight in the aggregate; None if the rule makes a model of its own.
        malicious: whether the client is an attacker, known in a simulation only; else None. Defenses never see it.
        reason: why the upload was left out, if not for its score.
        counted: the number of samples that the claim counts as, if the claim is too large; else None.
        shortened: number of tensors of the kept upload that were pulled toward the global model (`Round.bounded`).
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
    """Verdict of a detector that does not act, with lists over `RoundReport.clients`.

    An unusable upload has an infinite score and is flagged and excluded.

    Attributes:
        scores: suspicion scores, higher is worse; None without scores.
        flagged: this round's flags, True for suspicious; None for a rule that does not judge clients one by one.
        excluded: what the aggregation would leave out (a vote over rounds may differ from the flags); None likewise.
        threshold: the score above which a client is flagged; None without a threshold.
        seconds: the time that the detector took, in seconds by stage.
    """

    scores: Sequence[float] | None
    flagged: Sequence[bool] | None
    excluded: Sequence[bool] | None
    threshold: float | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class RoundReport:
    """Report of a round that was just aggregated.

    Attributes:
        number: the round, counted from 1.
        clients: one report per upload, in the order of the uploads.
        threshold: the threshold of the scores, if the defense has one.
        seconds: the time that the defense took, in seconds by stage; empty without a defense.
        global_model_stays: whether no upload was left to aggregate, so that the global model is unchanged.
        evidence: tensors for pictures, of shape (judged clients, ...).
        judged: the clients that the defense judged, which are those with a usable upload; empty without a defense.
        watched: verdicts of detectors that do not act, by name of the detector.
        notes: further remarks, one line each: claims that were cut, for instance.
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
    """Metrics that FedML measured after a round, and in an event of its own the success rate of a targeted attack.

    Attributes:
        number: the round, counted from 1.
        values: the metrics under FedML's names ("Test/Acc", "Train/Loss", ...), or under "Attack/Success".
    """

    number: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Tested:
    """Event that FedML has tested the new global model; published by the single-process simulator only.

    Attributes:
        number: the round, counted from 1.
        network: the tested module with the new weights: the network, or several networks that vote. The module is
            FedML's own and on its device; listeners must not change it.
        success: the attack success rate, the share of the test images with the trigger that are classified as the
            attack wants; None without a targeted attack.
    """

    number: int
    network: nn.Module
    success: float | None = None


@dataclass(frozen=True)
class Triggered:
    """Event that a backdoor's attackers took part in a round: an image without and with the trigger, and the models.

    Attributes:
        number: the round, counted from 1.
        network: the architecture, which returns logits; listeners must not change it.
        images: (2, channels, height, width), a test image without and with the trigger.
        label: the class of the image.
        target: the class that the attackers want for the image with the trigger.
        global_model: the state dict that the clients started from.
        uploads: the state dicts of the clients whose uploads passed the gate, by client id.
        attackers: which of them are attackers; defenses never see it.
    """

    number: int
    network: nn.Module
    images: Tensor
    label: int
    target: int
    global_model: Mapping[str, Tensor]
    uploads: Mapping[ClientId, Mapping[str, Tensor]]
    attackers: Sequence[ClientId]


Event = RoundReport | Measured | Tested | Triggered
Listener = Callable[[Event], None]

_listeners: list[Listener] = []


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Return a context manager that registers listeners and removes them at the end.

    Args:
        listeners: functions that are called with every published event.
    """
    _listeners.extend(listeners)
    try:
        yield
    finally:
        for listener in listeners:
            _listeners.remove(listener)


def publish(event: Event) -> None:
    """Call every registered listener with an event."""
    for listener in list(_listeners):
        listener(event)
