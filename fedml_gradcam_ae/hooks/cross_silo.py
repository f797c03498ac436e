"""`training_type: cross_silo`: the server's aggregator, with real identities and without unusable uploads."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from fedml.core import Context
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.cross_silo.server.fedml_aggregator import FedMLAggregator
from torch import Tensor

from fedml_gradcam_ae import events
from fedml_gradcam_ae.federation import ClientId, sample_problem, upload_problem
from fedml_gradcam_ae.hooks.attacker import PluginAttack
from fedml_gradcam_ae.hooks.defender import PluginDefense
from fedml_gradcam_ae.hooks.federation import Federation, publish
from fedml_gradcam_ae.hooks.refused import Refused
from fedml_gradcam_ae.hooks.reporting import report_round

log = logging.getLogger("fedml_gradcam_ae")

Upload = tuple[float, Mapping[str, Tensor]]


class HookedAggregator(FedMLAggregator):  # type: ignore[misc]  # fedml has no types
    """FedMLAggregator that averages who is there, without unusable uploads, and tells a defense who they are from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network = copy.deepcopy(self.aggregator.model).to(self.device).eval()

    @property
    def defense(self) -> Any:
        """Our defense, if one is on."""
        defender = FedMLDefender.get_instance()
        plugin = defender.defender if defender.is_enabled else None
        return plugin.defense if isinstance(plugin, PluginDefense) else None

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
        attacker = FedMLAttacker.get_instance()
        global_model = OrderedDict(
            (name, tensor.detach().clone()) for name, tensor in self.get_global_model_params().items()
        )
        problems = {client: problem for client in uploads if (problem := _problem(uploads[client], global_model))}
        usable = [uploads[client] for client in uploads if client not in problems]
        federation = Federation(
            number=number,
            client_ids=list(uploads),
            samples={client: samples for client, (samples, _) in uploads.items()},
            clients=clients,
            network=self.network,
            test_data=self.test_global,
            local_data=local_data,
            attackers=[] if not attacker.is_enabled or isinstance(attacker.attacker, PluginAttack) else None,
            rejected=problems,
        )
        aggregate: Mapping[str, Tensor] = global_model
        with publish(federation):
            if usable:
                kept, _ = self.aggregator.on_before_aggregation(usable)
                Context().add(Context.KEY_CLIENT_MODEL_LIST, kept)
                report = report_round(federation)
                aggregate = self.aggregator.aggregate(kept)
                if not report.global_model_stays:
                    aggregate = self.aggregator.on_after_aggregation(aggregate)
            else:
                report = report_round(federation)
        self.set_global_model_params(aggregate)
        events.publish(report)
        return [client.client for client in report.clients if not client.excluded]


def _problem(upload: Any, template: Mapping[str, Tensor]) -> str | None:
    samples, model = upload
    if isinstance(model, Refused):
        return model.reason
    return sample_problem(samples) or upload_problem(model, template)
