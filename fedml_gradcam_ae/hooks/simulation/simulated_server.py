"""What a simulator's server does with the uploads of a round, the same for `backend: sp` and `MPI`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from fedml_gradcam_ae.contract.interfaces import Defense, overrides
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.tied import tied_names, with_one_value
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.shared.composed import parts_of
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.aggregation import Aggregated
from fedml_gradcam_ae.hooks.simulation.drop_out import arriving
from fedml_gradcam_ae.hooks.simulation.momentum import ServerMomentum, WorkerMomentum
from fedml_gradcam_ae.hooks.simulation.optimizers import MEAN_IS_GLOBAL
from fedml_gradcam_ae.hooks.simulation.plain import plain_average
from fedml_gradcam_ae.hooks.simulation.settings import read_simulation_settings
from fedml_gradcam_ae.hooks.surroundings import Uploads, identity


class SimulatedServer:
    """The server of a simulation: momentum and lost uploads, then attack, defense and aggregation.

    Args:
        args: FedML's args.
        network: a private copy of the architecture, in eval mode, on the device to compute on.
        test_data: the server's batches (images, labels).

    Raises:
        SettingsError: if the settings are wrong or do not go together with the defense.
        ValueError: if the defense cannot work with the network or the data.
    """

    def __init__(self, args: Any, network: nn.Module, test_data: Iterable[Any]) -> None:
        self.args, self.network, self.test_data = args, network, test_data
        self.settings = read_simulation_settings(args)
        names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        self._tied = tied_names(network)
        self._of_workers = WorkerMomentum(self.settings.worker_momentum, names)
        self._of_server = ServerMomentum(self.settings.server_momentum, names)
        own = aggregation.defense()
        _check_models_of_its_own(own, args)
        if own is not None and overrides(type(own), "start_for"):
            for key in ("worker_momentum", "server_momentum"):
                if getattr(self.settings, key):
                    raise SettingsError(
                        f"simulation_args.{key}: {args.defense_type} has clients start from different models, of which "
                        "none is the global model that momentum is relative to: leave it out."
                    )
        if self.settings.server_momentum and any(overrides(type(part), "predictor") for part in parts_of(own)):
            raise SettingsError(
                f"simulation_args.server_momentum: {args.defense_type} predicts by the model that it made, which is "
                "not the one that momentum makes of it: leave it out."
            )
        aggregation.prepare(network, test_data)

    def aggregate(self, *given: Any, **options: Any) -> Any:
        """Return the new global model, a state dict, which the aggregator has then as well; see `run_round`."""
        return self.run_round(*given, **options).model

    def run_round(
        self,
        aggregator: Any,
        average: Callable[[Uploads], Any],
        uploads: Uploads,
        *,
        number: int,
        client_ids: Sequence[Any],
        local_data: Mapping[Any, Iterable[Any]],
        rejected: Mapping[ClientId, str] | None = None,
        trained: Sequence[Any] | None = None,
    ) -> Aggregated:
        """Return the result of one round, whose model the aggregator has then as well.

        Without attack, defense and watching detector this is FedML's own average of the usable uploads.

        Args:
            aggregator: FedML's ServerAggregator, with the old global model.
            average: FedML's average of pairs (sample count, state dict).
            uploads: pairs (sample count, state dict), in the order of the clients.
            number: the round, counted from 1.
            client_ids: the clients that trained, in the order of `uploads`.
            local_data: training data by client id, for attacks.
            rejected: reasons by client id, for clients whose upload is known to be unusable.
            trained: the clients that trained in this round, if not all of them upload to this server; None: those of
                `client_ids`.
        """
        settings, before = self.settings, aggregator.get_model_params()
        if settings.server_momentum:
            before = {name: tensor.detach().clone() for name, tensor in before.items()}
        if settings.worker_momentum:
            uploads = [
                (samples, with_one_value(self._of_workers.upload(identity(client), model, before), self._tied))
                for client, (samples, model) in zip(client_ids, uploads, strict=True)
            ]
        trained, seed = client_ids if trained is None else trained, abs(int(getattr(self.args, "random_seed", 0)))
        kept = arriving(len(uploads), settings.drop_out, seed, number)
        uploads, client_ids = [uploads[i] for i in kept], [client_ids[i] for i in kept]
        if aggregation.defense_or_attack_active():
            result = aggregation.aggregate(
                aggregator,
                uploads,
                number=number,
                client_ids=client_ids,
                clients=range(int(self.args.client_num_in_total)),
                network=self.network,
                test_data=self.test_data,
                local_data=local_data,
                rejected=rejected,
                trained=trained,
            )
        else:
            result = plain_average(
                average,
                uploads,
                number=number,
                client_ids=client_ids,
                network=self.network,
                global_model=before,
                rejected=rejected,
            )
            aggregator.set_model_params(result.model)
        if settings.server_momentum and not result.report.global_model_stays:  # a model that is to stay does not coast
            model = with_one_value(self._of_server.model(result.model, before), self._tied)
            aggregator.set_model_params(model)
            result = result._replace(model=OrderedDict(model))
        return result


def _check_models_of_its_own(own: Defense | None, args: Any) -> None:
    """Reject a defense that keeps models of its own where the optimizer's server makes another model of the mean."""
    optimizer = getattr(args, "federated_optimizer", "FedAvg")
    keeps = any(overrides(type(part), name) for part in parts_of(own) for name in ("start_for", "predictor"))
    if keeps and optimizer not in MEAN_IS_GLOBAL:
        raise SettingsError(
            f"federated_optimizer: {optimizer}: {args.defense_type} trains or predicts by models of its own, of which "
            f"this optimizer knows nothing; it works with {' and '.join(MEAN_IS_GLOBAL)}."
        )
