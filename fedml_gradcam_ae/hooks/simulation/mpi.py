"""Patches of the MPI simulator (`backend: MPI`) with FedAvg: a server on rank 0, a client on every other rank."""

from __future__ import annotations

import copy
from typing import Any

import fedml
import numpy as np
from fedml.core.distributed.communication.constants import CommunicationConstants
from fedml.core.distributed.communication.mpi.mpi_receive_thread import MPIReceiveThread
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.simulation.mpi.fedavg import FedAvgAPI
from fedml.simulation.mpi.fedavg.FedAVGAggregator import FedAVGAggregator
from fedml.simulation.mpi.fedavg.FedAvgClientManager import FedAVGClientManager
from fedml.simulation.mpi.fedavg.FedAvgServerManager import FedAVGServerManager
from fedml.simulation.mpi.fedavg.FedAVGTrainer import FedAVGTrainer

from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.attacker import training_data
from fedml_gradcam_ae.hooks.logits import give_logits
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.hooks.success import publish_success


def patch(patches: Patches) -> None:
    """Replace the parts of the MPI simulator; mpi4py is not needed until a runner is made.

    FedML looks the parts up in the module FedAvgAPI when it makes a runner, so they are replaced there.
    """
    stock_start, stock_run = fedml._init_simulation_mpi, FedAvgAPI.FedML_FedAvg_distributed
    stock_server, stock_receive = FedAvgAPI.init_server, MPIReceiveThread.run

    def start(args: Any) -> Any:
        ranks.check_mpi()
        stock_start(args)
        ranks.stop_all_on_uncaught_errors(patches)
        _check_world(args)
        return args

    patches.replace(
        fedml,
        "_init_simulation_mpi",
        start,
        mends="with too few ranks some clients never take part; an error in a script leaves the other ranks waiting",
    )

    def run(*args: Any, **options: Any) -> None:
        try:
            stock_run(*args, **options)
        except Exception as error:
            ranks.stop_all(error)
            raise

    patches.replace(
        FedAvgAPI, "FedML_FedAvg_distributed", run, mends="an error on one rank leaves the other ranks waiting"
    )

    def receive(self: Any) -> None:
        try:
            stock_receive(self)
        except Exception as error:
            ranks.stop_all(error)
            raise

    patches.replace(MPIReceiveThread, "run", receive, mends="a message that cannot be read leaves every rank waiting")

    def serve(args: Any, *more: Any, **options: Any) -> None:
        with aggregation.run_listeners(args):
            stock_server(args, *more, **options)

    patches.replace(FedAvgAPI, "init_server", serve, mends="listeners get no report of a round")
    patches.replace(
        FedAvgAPI,
        "FedAVGAggregator",
        HookedFedAVGAggregator,
        mends="calls a method that most defenses lack; gives attacks no global model; averages unusable "
        "uploads, and cuts off the decimals of means of whole numbers",
    )
    patches.replace(
        FedAvgAPI, "FedAVGTrainer", HookedFedAVGTrainer, mends="`label_flipping` never reaches the training data"
    )
    patches.replace(
        FedAvgAPI,
        "FedAVGClientManager",
        HookedFedAVGClientManager,
        mends="with `comm_round: 1` the clients wait forever for a second round; a needless warning on every start",
    )
    patches.replace(
        FedAvgAPI, "FedAVGServerManager", HookedFedAVGServerManager, mends="a needless warning on every start"
    )


class HookedFedAVGAggregator(FedAVGAggregator):  # type: ignore[misc]  # fedml has no types
    """FedAVGAggregator that aggregates through FedML's ServerAggregator, in which attacks and defenses act."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.network = copy.deepcopy(self.aggregator.model).to(self.device).eval()
        give_logits(self.aggregator)
        self.sampled: Any = []
        self.server = SimulatedServer(self.args, self.network, self.test_global)

    def client_sampling(self, *args: Any) -> Any:
        """Return FedML's choice of clients and keep it: client n of the choice, from 0, trains on rank n + 1."""
        self.sampled = super().client_sampling(*args)
        return self.sampled

    def aggregate(self) -> Any:
        """Return the new global model.

        Without attack, defense and watching detector this is FedML's own average of the usable uploads.
        """
        # The uploads are on the CPU, while testing has moved the global model to the device.
        self.aggregator.model.cpu()
        uploads = [(self.sample_num_dict[index], self.model_dict[index]) for index in range(self.worker_num)]
        return self.server.aggregate(
            self.aggregator,
            self._fedavg_aggregation_,
            uploads,
            number=int(self.args.round_idx) + 1,
            client_ids=self.sampled[: self.worker_num],
            local_data=self.train_data_local_dict,
        )

    def test_on_server_for_all_clients(self, round_idx: int) -> None:
        """Test the new global model as FedML does, and publish the success rate of a targeted attack.

        Args:
            round_idx: the round, counted from 0.
        """
        super().test_on_server_for_all_clients(round_idx)
        if round_idx % self.args.frequency_of_the_test == 0 or round_idx == self.args.comm_round - 1:
            publish_success(round_idx + 1, self.aggregator.model, self.test_global)


class HookedFedAVGTrainer(FedAVGTrainer):  # type: ignore[misc]  # fedml has no types
    """FedAVGTrainer that poisons the training data if FedML's `label_flipping` or one of the plug-in's attacks asks."""

    train_local: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        give_logits(self.trainer)

    def train(self, round_idx: Any = None) -> Any:
        """Train one round on this rank.

        Args:
            round_idx: the round, counted from 0.
        """
        attacker = FedMLAttacker.get_instance()
        if attacker.is_data_poisoning_attack():
            # The attack derives the round and its random draws from its count of calls, one for each client. Each
            # rank sees its own calls only, so the count is set to what one process would have counted.
            attacker.attacker.counter = round_idx * self.args.client_num_per_round + self.args.rank - 1
            if attacker.is_to_poison_data():
                self.train_local = attacker.poison_data(self.train_local)
        total, sampled = int(self.args.client_num_in_total), int(self.args.client_num_per_round)
        self.train_local = training_data(
            self.train_local,
            self.trainer.model,
            client=self.client_index,
            number=int(round_idx) + 1,
            clients=range(total),
            # The clients that the server drew, repeated here: FedML seeds numpy with the round's number.
            present=range(total)
            if total == sampled
            else np.random.RandomState(round_idx).choice(total, sampled, replace=False).tolist(),
        )
        return super().train(round_idx)


class HookedFedAVGClientManager(FedAVGClientManager):  # type: ignore[misc]  # fedml has no types
    """FedAVGClientManager that ends after the first round if the run has only one round."""

    def register_message_receive_handlers(self) -> None:
        """Register FedML's handlers, and one for the message for which FedML logs a warning."""
        super().register_message_receive_handlers()
        _expect_the_first_message(self)

    def handle_message_init(self, msg_params: Any) -> None:
        """Train the first round, and finish if it is the only one."""
        super().handle_message_init(msg_params)
        if self.num_rounds == 1:
            self.finish()


class HookedFedAVGServerManager(FedAVGServerManager):  # type: ignore[misc]  # fedml has no types
    """FedAVGServerManager that starts without FedML's needless warning."""

    def register_message_receive_handlers(self) -> None:
        """Register FedML's handlers, and one for the message for which FedML logs a warning."""
        super().register_message_receive_handlers()
        _expect_the_first_message(self)


def _expect_the_first_message(manager: Any) -> None:
    """Register a handler for "connection is ready".

    FedML sends this message to itself. FedAvg has no handler for it, so FedML logs a warning.
    """
    manager.register_message_receive_handler(CommunicationConstants.MSG_TYPE_CONNECTION_IS_READY, lambda _: None)


def _check_world(args: Any) -> None:
    """Check that each client of a round has a rank; FedML would leave out clients without one."""
    acts = getattr(args, "enable_defense", False) or getattr(args, "enable_attack", False)
    if acts:
        ranks.check_world(int(args.client_num_per_round), args.worker_num)
