"""What FedML does not tell a defense or an attack: who uploaded, on what network, with which test data.

A path's hook publishes it around FedML's own calls; the hooks of FedML's defender and attacker read it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.screening import pass_gate
from fedml_gradcam_ae.contract.upload import ClientId, Upload
from fedml_gradcam_ae.hooks.upload_settings import UploadSettings

Uploads = list[tuple[float, Upload]]


@dataclass
class Federation:
    """One round's surroundings, and what the attacker and the defender made of it.

    Attributes:
        number: the round, from 1.
        client_ids: real identities in the order of the uploads.
        samples: what each of them sent as its number of samples, which may be anything.
        clients: everybody who may take part.
        network: a private copy of the architecture, in eval mode, on the device to compute on.
        test_data: the server's.
        local_data: training data by client id, for attacks.
        attackers: who attacked in this round; None if that cannot be known (FedML's own attacks do not tell).
        settings: of the gate.
        attacked: whether an attack is on, so that uploads are no longer what passed the gate before it.
        rejected: clients whose upload was found unusable before any attack or defense was asked, with the reason.
        admitted: the round behind the gate, without unusable uploads.
        notes: lines for the report.
        judged: the round that the defense saw: `admitted`, if a defense is on.
        verdict: what it answered.
        watched: what detectors that do not act said of the same round.
    """

    number: int
    client_ids: list[ClientId]
    samples: dict[ClientId, Any]
    clients: Sequence[ClientId]
    network: nn.Module
    test_data: Iterable[Any]
    local_data: Mapping[ClientId, Iterable[Any]]
    attackers: list[ClientId] | None = field(default_factory=list)
    settings: UploadSettings = field(default_factory=UploadSettings)
    attacked: bool = False
    rejected: Mapping[ClientId, str] = field(default_factory=dict)
    admitted: Round | None = None
    notes: list[str] = field(default_factory=list)
    judged: Round | None = None
    verdict: Verdict | None = None
    watched: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def present(self) -> list[ClientId]:
        """The clients whose uploads attacks and defenses work on."""
        return [client for client in self.client_ids if client not in self.rejected]

    def round(self, uploads: Uploads, global_model: Mapping[str, Tensor], with_local_data: bool = False) -> Round:
        """The Round of these uploads; the global model is copied, since FedML's is the live one."""
        return Round(
            number=self.number,
            client_ids=self.present,
            uploads=[upload for _, upload in uploads],
            samples=[samples for samples, _ in uploads],
            global_model={name: tensor.detach().clone() for name, tensor in global_model.items()},
            network=self.network,
            test_data=self.test_data,
            local_data=self.local_data if with_local_data else {},
            rejected=self.rejected,
            largest_step=self.settings.largest_step,
        )

    def gate(self, uploads: Uploads, global_model: Mapping[str, Tensor]) -> Round:
        """The Round of these uploads behind the gate, through which each of them goes once, and again after an attack.

        Args:
            uploads: pairs of a number of samples and a state dict, or of whatever stands in their place.
            global_model: what the clients started from.
        """
        known = self.admitted
        given = [id(upload) for _, upload in uploads]
        if known is not None and not self.attacked and given == [id(upload) for upload in known.uploads]:
            return known
        screened = pass_gate(self.round(uploads, global_model), self.settings.largest_weight)
        self.admitted = screened.round
        self.notes += screened.notes
        return screened.round


def pairs(round: Round) -> Uploads:
    """The uploads of a round as FedML wants them: each with its number of samples."""
    return list(zip(round.samples, round.uploads, strict=True))


def own_dicts(uploads: Uploads) -> Uploads:
    """The same uploads in other dicts, since FedML writes its average into the first of them."""
    return [(samples, OrderedDict(upload)) for samples, upload in uploads]


def identity(client: Any) -> ClientId:
    """A client's id as plain Python: FedML's sampling gives numpy integers."""
    return client if isinstance(client, str) else int(client)


_current: Federation | None = None


def current() -> Federation | None:
    """The round that is being aggregated, or None outside of one."""
    return _current


@contextmanager
def publish(federation: Federation) -> Iterator[Federation]:
    """Make `current()` answer with this round while the block runs."""
    global _current
    before, _current = _current, federation
    try:
        yield federation
    finally:
        _current = before
