"""Context of a round that FedML does not pass to defenses and attacks: client ids, network, test data.

The hook of each FedML path publishes the context around FedML's own calls. The hooks of FedMLDefender and
FedMLAttacker read it.
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
    """Context of one round, and the results of the attack and the defense.

    Attributes:
        number: the round, counted from 1.
        client_ids: the clients that uploaded, in the order of the uploads: real ids, not positions.
        samples: what each client sent as its number of samples, by client id; may be an arbitrary object.
        clients: all clients that may take part.
        network: a private copy of the architecture, in eval mode, on the device to compute on.
        test_data: the server's batches (images, labels).
        local_data: training data by client id, for attacks.
        trained: the clients that trained in this round, in the order of their uploads, if some uploads were lost; None:
            those of `client_ids`.
        attackers: the clients that attacked in this round; None if unknown (FedML's own attacks do not report them).
        settings: the settings of the gate.
        attacked: whether an attack is on. If so, uploads that passed the gate before the attack pass it again.
        rejected: reasons by client id, for uploads that were found unusable before any attack or defense ran.
        admitted: the round with the uploads that passed the gate.
        notes: lines for the report.
        judged: the round that the defense saw, which is `admitted`; None without a defense.
        verdict: the defense's verdict.
        watched: verdicts of detectors that do not act, by name of the detector.
    """

    number: int
    client_ids: list[ClientId]
    samples: dict[ClientId, Any]
    clients: Sequence[ClientId]
    network: nn.Module
    test_data: Iterable[Any]
    local_data: Mapping[ClientId, Iterable[Any]]
    trained: list[ClientId] | None = None
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
        """Return the clients whose uploads were not rejected, in the order of the uploads."""
        return [client for client in self.client_ids if client not in self.rejected]

    def round(self, uploads: Uploads, global_model: Mapping[str, Tensor], with_local_data: bool = False) -> Round:
        """Return the `Round` of these uploads, without a check of them.

        The global model is copied, since FedML passes the tensors that training changes.

        Args:
            uploads: pairs (sample count, state dict), one for each client of `present`.
            global_model: the state dict that the clients started from.
            with_local_data: whether the round holds `local_data`, for an attack.
        """
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
        """Return the `Round` of the uploads that pass the gate.

        Uploads that passed the gate before are not screened again, unless an attack is on.

        Args:
            uploads: pairs (sample count, state dict), one for each client of `present`. Both may be arbitrary
                objects.
            global_model: the state dict that the clients started from.
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
    """Return the uploads of a round in FedML's form: pairs (sample count, state dict)."""
    return list(zip(round.samples, round.uploads, strict=True))


def own_dicts(uploads: Uploads) -> Uploads:
    """Return the uploads in new dicts, since FedML writes its average into the first dict."""
    return [(samples, OrderedDict(upload)) for samples, upload in uploads]


def identity(client: Any) -> ClientId:
    """Return a client's id as a Python str or int; FedML's sampling gives numpy integers.

    Example:
        >>> import numpy
        >>> identity(numpy.int64(3)), identity("silo-3")
        (3, 'silo-3')
    """
    return client if isinstance(client, str) else int(client)


_current: Federation | None = None


def current() -> Federation | None:
    """Return the context of the round that is being aggregated; None if there is none."""
    return _current


@contextmanager
def aggregating(federation: Federation) -> Iterator[Federation]:
    """Return a context manager in which `current()` returns this context."""
    global _current
    before, _current = _current, federation
    try:
        yield federation
    finally:
        _current = before
