"""`training_type: cross_silo`: the server's aggregator, with real identities and without unusable uploads."""

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
    """FedMLAggregator that averages who is there, without unusable uploads, and tells a defense who they are from."""

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
        """Make the new global model.

        Args:
            number: the round, from 1.
            uploads: (samples, model) by client, in the order of the clients; a model may be anything.
            clients: everybody who may take part.
            local_data: the clients' training data where the server has them, for attacks staged on it.

        Returns:
            The clients that were not left out.
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
