"""The aggregator of the cross-silo server, which knows the clients' real ids and leaves out unusable uploads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from fedml.core import Context
from fedml.cross_silo.server.fedml_aggregator import FedMLAggregator

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.logits import give_logits
from fedml_gradcam_ae.hooks.surroundings import pairs


class HookedAggregator(FedMLAggregator):  # type: ignore[misc]  # fedml has no types
    """FedMLAggregator that aggregates the uploads that are there and tells the defense which clients they are from.

    Unusable uploads are left out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network = copy.deepcopy(self.aggregator.model).to(self.device).eval()
        give_logits(self.aggregator)

    def aggregate_uploads(
        self,
        number: int,
        uploads: Mapping[ClientId, Any],
        clients: Sequence[ClientId],
        local_data: Mapping[ClientId, Any],
    ) -> list[ClientId]:
        """Aggregate the uploads of one round into the new global model.

        Args:
            number: the round, counted from 1.
            uploads: pairs (sample count, model) by client id; both may be arbitrary objects. A `Refused` in place of
                the model marks an upload that was not read.
            clients: all clients that may take part.
            local_data: training data by client id, where the server has them, for simulated attacks.

        Returns:
            The ids of the clients whose uploads were not left out.
        """
        refused = {client: model.reason for client, (_, model) in uploads.items() if isinstance(model, Refused)}
        done = aggregation.aggregate(
            self.aggregator,
            list(uploads.values()),
            number=number,
            client_ids=list(uploads),
            clients=clients,
            network=self.network,
            test_data=self.test_global,
            local_data=local_data,
            rejected=refused,
            from_strangers=True,
        )
        kept = [client.client for client in done.report.clients if not client.excluded]
        usable = {} if done.admitted is None else dict(zip(done.admitted.client_ids, pairs(done.admitted), strict=True))
        Context().add(Context.KEY_CLIENT_MODEL_LIST, [usable[client] for client in kept])
        return kept
