"""FedML's own average in a simulation in which nothing acts: as it is, but without unusable uploads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.hooks.averaging import rounded
from fedml_gradcam_ae.hooks.reporting import report_round
from fedml_gradcam_ae.hooks.surroundings import Federation, Uploads, identity, own_dicts, pairs
from fedml_gradcam_ae.hooks.upload_settings import UploadSettings
from fedml_gradcam_ae.recording import events


def plain_average(
    average: Callable[[Uploads], Any],
    uploads: Uploads,
    *,
    number: int,
    client_ids: Sequence[Any],
    network: nn.Module,
    global_model: Mapping[str, Tensor],
) -> Any:
    """FedML's average of the usable uploads; the round is reported only if there is something to say.

    Claims count in full: without attack and defense a simulation is FedML's own.

    Args:
        average: FedML's, from pairs of a number of samples and a state dict.
        uploads: such pairs.
        number: the round, from 1.
        client_ids: who uploaded, in the order of the uploads.
        network: a private copy of the architecture.
        global_model: what the clients started from; it stays where no upload is usable.
    """
    ids = [identity(client) for client in client_ids]
    federation = Federation(
        number=number,
        client_ids=ids,
        samples=dict(zip(ids, (samples for samples, _ in uploads), strict=True)),
        clients=ids,
        network=network,
        test_data=[],
        local_data={},
        settings=UploadSettings(largest_weight=None),
    )
    admitted = federation.gate(uploads, global_model)
    if admitted.rejected or federation.notes:
        events.publish(report_round(federation))
    return rounded(average, own_dicts(pairs(admitted))) if admitted.uploads else global_model
