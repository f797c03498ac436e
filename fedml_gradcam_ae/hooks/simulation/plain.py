"""FedML's own average without unusable uploads, for simulations without attack and defense."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks.aggregation import Aggregated
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
    rejected: Mapping[ClientId, str] | None = None,
) -> Aggregated:
    """Aggregate one round by FedML's average of the usable uploads.

    The round is reported only if an upload was rejected or the gate left a note. Claimed sample counts have no limit
    here, since a simulation without attack and defense gives FedML's own results.

    Args:
        average: FedML's average of pairs (sample count, state dict).
        uploads: pairs (sample count, state dict), in the order of the clients.
        number: the round, counted from 1.
        client_ids: the clients that uploaded, in the order of `uploads`.
        network: a private copy of the architecture.
        global_model: the state dict that the clients started from.
        rejected: reasons by client id, for clients whose upload is known to be unusable. These uploads are left out.

    Returns:
        The round's result. Its model is `global_model` if no upload is usable.
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
        rejected=rejected or {},
    )
    usable = [upload for client, upload in zip(ids, uploads, strict=True) if client not in federation.rejected]
    admitted = federation.gate(usable, global_model)
    report = report_round(federation)
    if admitted.rejected or federation.notes:
        events.publish(report)
    model = rounded(average, own_dicts(pairs(admitted))) if admitted.uploads else global_model
    return Aggregated(OrderedDict(model), report, admitted)
