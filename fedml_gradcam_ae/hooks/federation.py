"""What FedML does not tell a defense or an attack: who uploaded, on what network, with which test data.

A path's hook publishes it around FedML's own calls; the hooks of FedML's defender and attacker read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.federation import ClientId, Round, Upload, Verdict

Uploads = list[tuple[float, Upload]]


@dataclass
class Federation:
    """One round's surroundings, and what the attacker and the defender made of it.

    Attributes:
        number: the round, from 1.
        client_ids: real identities in the order of the uploads.
        samples: the number of samples that each of them claims.
        clients: everybody who may take part.
        network: a private copy of the architecture, in eval mode, on the device to compute on.
        test_data: the server's.
        local_data: training data by client id, for attacks.
        attackers: who attacked in this round; None if that cannot be known (FedML's own attacks do not tell).
        rejected: clients whose upload was found unusable before any attack or defense was asked, with the reason.
        judged: the round that the defense saw, without unusable uploads.
        verdict: what it answered.
        watched: what detectors that do not act said of the same round.
        watched_clients: whose uploads they were given: the usable ones.
    """

    number: int
    client_ids: list[ClientId]
    samples: dict[ClientId, float]
    clients: Sequence[ClientId]
    network: nn.Module
    test_data: Iterable[Any]
    local_data: Mapping[ClientId, Iterable[Any]]
    attackers: list[ClientId] | None = field(default_factory=list)
    rejected: Mapping[ClientId, str] = field(default_factory=dict)
    judged: Round | None = None
    verdict: Verdict | None = None
    watched: Mapping[str, Verdict] = field(default_factory=dict)
    watched_clients: Sequence[ClientId] = ()

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
        )


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
    _current = federation
    try:
        yield federation
    finally:
        _current = None
