"""Patches of the single-process simulator (`backend: sp`), which calls neither attacker nor defender itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import fedml.simulation.sp.fedavg
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.ml.aggregator.aggregator_creator import create_server_aggregator
from fedml.simulation.sp.fedavg.fedavg_api import FedAvgAPI

from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.attacker import training_data
from fedml_gradcam_ae.hooks.logits import giving_logits
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.hooks.success import publish_success
from fedml_gradcam_ae.hooks.surroundings import Uploads
from fedml_gradcam_ae.recording import events


def patch(patches: Patches) -> None:
    """Replace FedAvgAPI in the simulator's package, where FedML looks it up when it makes a runner."""
    patches.replace(
        fedml.simulation.sp.fedavg,
        "FedAvgAPI",
        HookedFedAvgAPI,
        mends="the single-process simulator calls neither attacker nor defender, averages unusable uploads,"
        " and cuts off the decimals of means of whole numbers; in round 0 each client starts where "
        "the last one stopped",
    )


class HookedFedAvgAPI(FedAvgAPI):  # type: ignore[misc]  # fedml has no types
    """FedAvgAPI that aggregates through FedML's ServerAggregator, in which attacks and defenses act.

    Args:
        args: FedML's args.
        device: the device to train on.
        dataset: the data, as FedML's `data.load` returns them.
        model: the network.
    """

    def __init__(self, args: Any, device: Any, dataset: Any, model: Any) -> None:
        super().__init__(args, device, dataset, model)
        # The aggregator gets a copy, since the trainer's model holds the last client's weights during aggregation.
        self.aggregator = create_server_aggregator(copy.deepcopy(model).cpu(), args)
        self.network = copy.deepcopy(model).to(device).eval()
        self.round_number = 0
        self.sampled: Sequence[Any] = []
        self.server: SimulatedServer | None = None

    def train(self) -> None:
        """Run all rounds.

        Raises:
            SettingsError: if `simulation_args` do not go together with the defense.
            ValueError: if the defense cannot work with the network or the data.
        """
        self.aggregator.set_model_params(self.model_trainer.get_model_params())
        self._give_round_zero_a_fixed_start()
        self.round_number = 0
        self.server = SimulatedServer(self.args, self.network, self.test_global)
        with aggregation.run_listeners(self.args), giving_logits(self.model_trainer):
            super().train()

    def _give_round_zero_a_fixed_start(self) -> None:
        """Make all clients start round 0 from the same weights.

        FedAvgAPI takes the trainer's own state dict as the global model of round 0, and training of the first client
        changes that state dict. So the first call returns a copy.
        """
        trainer, live = self.model_trainer, self.model_trainer.get_model_params

        def first_call() -> Any:
            trainer.get_model_params = live
            return copy.deepcopy(live())

        trainer.get_model_params = first_call

    def _setup_clients(self, *args: Any) -> None:
        super()._setup_clients(*args)
        for client in self.client_list:
            client.train = partial(self._train_client, client)

    def _client_sampling(self, *args: Any) -> Any:
        self.sampled = super()._client_sampling(*args)
        return self.sampled

    def _train_client(self, client: Any, w_global: Any) -> Any:
        """Train a client: poison its data if an attack asks for it, and use the start that a defense chooses.

        FedML's label_flipping poisons data in ClientTrainer.update_dataset, which this simulator never calls.
        """
        attacker = FedMLAttacker.get_instance()
        if attacker.is_data_poisoning_attack() and attacker.is_to_poison_data():
            client.local_training_data = attacker.poison_data(client.local_training_data)
        client.local_training_data = training_data(
            client.local_training_data,
            self.model_trainer.model,
            client=client.client_idx,
            number=self.round_number + 1,
            clients=range(int(self.args.client_num_in_total)),
            present=self.sampled,
        )
        return type(client).train(client, aggregation.start_for(client.client_idx, w_global))

    def _aggregate(self, w_locals: Uploads) -> Any:
        self.round_number += 1
        client_ids = [client.client_idx for client in self.client_list]
        assert self.server is not None
        return self.server.aggregate(
            self.aggregator,
            super()._aggregate,
            w_locals,
            number=self.round_number,
            client_ids=client_ids,
            local_data=self.train_data_local_dict,
        )

    def _local_test_on_all_clients(self, round_idx: int) -> None:
        trained = self.model_trainer.model
        self.model_trainer.model = aggregation.predictor(trained)
        try:
            super()._local_test_on_all_clients(round_idx)
            tested, number = self.model_trainer.model, round_idx + 1
            success = publish_success(number, tested, self.test_global)
            events.publish(events.Tested(number=number, network=tested, success=success))
        finally:
            self.model_trainer.model = trained
