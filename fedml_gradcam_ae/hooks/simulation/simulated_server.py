"""What a simulator's server does with the uploads of a round, the same for `backend: sp` and `MPI`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.tied import tied_names, with_one_value
from fedml_gradcam_ae.defenses.shared.composed import parts_of
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.simulation.drop_out import arriving
from fedml_gradcam_ae.hooks.simulation.momentum import ServerMomentum, WorkerMomentum
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

    def aggregate(
        self,
        aggregator: Any,
        average: Callable[[Uploads], Any],
        uploads: Uploads,
        *,
        number: int,
        client_ids: Sequence[Any],
        local_data: Mapping[Any, Iterable[Any]],
    ) -> Any:
        """Return the new global model, which the aggregator has then as well.

        Without attack, defense and watching detector this is FedML's own average of the usable uploads.

        Args:
            aggregator: FedML's ServerAggregator, with the old global model.
            average: FedML's average of pairs (sample count, state dict).
            uploads: pairs (sample count, state dict), in the order of the clients.
            number: the round, counted from 1.
            client_ids: the clients that trained, in the order of `uploads`.
            local_data: training data by client id, for attacks.
        """
        settings, before = self.settings, aggregator.get_model_params()
        if settings.server_momentum:
            before = {name: tensor.detach().clone() for name, tensor in before.items()}
        if settings.worker_momentum:
            uploads = [
                (samples, with_one_value(self._of_workers.upload(identity(client), model, before), self._tied))
                for client, (samples, model) in zip(client_ids, uploads, strict=True)
            ]
        trained, seed = client_ids, abs(int(getattr(self.args, "random_seed", 0)))
        kept = arriving(len(uploads), settings.drop_out, seed, number)
        uploads, client_ids = [uploads[i] for i in kept], [client_ids[i] for i in kept]
        model: Mapping[str, Tensor]
        moves = True
        if aggregation.defense_or_attack_active():
            aggregated = aggregation.aggregate(
                aggregator,
                uploads,
                number=number,
                client_ids=client_ids,
                clients=range(int(self.args.client_num_in_total)),
                network=self.network,
                test_data=self.test_data,
                local_data=local_data,
                trained=trained,
            )
            model, moves = aggregated.model, not aggregated.report.global_model_stays
        else:
            model = plain_average(
                average, uploads, number=number, client_ids=client_ids, network=self.network, global_model=before
            )
            aggregator.set_model_params(model)
        if settings.server_momentum and moves:  # a model that is to stay does not coast on
            model = with_one_value(self._of_server.model(model, before), self._tied)
            aggregator.set_model_params(model)
        return model
