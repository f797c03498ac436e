"""`backend: MPI` with FedAvg: a server on rank 0, a client on every other rank."""

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

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.attacker import training_data
from fedml_gradcam_ae.hooks.logits import give_logits
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.simulation import ranks
from fedml_gradcam_ae.hooks.simulation.plain import plain_average


def patch(patches: Patches) -> None:
    """The MPI simulator looks all of these up in FedAvgAPI when a runner is made; mpi4py is not needed before."""
    stock_start, stock_run = fedml._init_simulation_mpi, FedAvgAPI.FedML_FedAvg_distributed
    stock_server, stock_receive = FedAvgAPI.init_server, MPIReceiveThread.run

    def start(args: Any) -> Any:
        _check_mpi()
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
        with aggregation.watched(args):
            stock_server(args, *more, **options)

    patches.replace(FedAvgAPI, "init_server", serve, mends="nobody hears what happened in a round")
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
        mends="with `comm_round: 1` the clients wait for a second round for ever; warns of nothing on every start",
    )
    patches.replace(
        FedAvgAPI, "FedAVGServerManager", HookedFedAVGServerManager, mends="warns of nothing on every start"
    )


class HookedFedAVGAggregator(FedAVGAggregator):  # type: ignore[misc]  # fedml has no types
    """FedAVGAggregator that aggregates through FedML's own ServerAggregator, where attacks and defenses act."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.network = copy.deepcopy(self.aggregator.model).to(self.device).eval()
        give_logits(self.aggregator)
        self.sampled: Any = []
        aggregation.prepare(self.network, self.test_global)

    def client_sampling(self, *args: Any) -> Any:
        """FedML's choice; the n-th of them trains on rank n + 1, so its upload is the n-th."""
        self.sampled = super().client_sampling(*args)
        return self.sampled

    def aggregate(self) -> Any:
        """The new global model; FedML's own average of the usable uploads with neither attack nor defense."""
        # Uploads arrive on the CPU; testing moved the global model to the device.
        self.aggregator.model.cpu()
        uploads = [(self.sample_num_dict[index], self.model_dict[index]) for index in range(self.worker_num)]
        number, client_ids = int(self.args.round_idx) + 1, self.sampled[: self.worker_num]
        if not aggregation.anybody_acts():
            model = plain_average(
                self._fedavg_aggregation_,
                uploads,
                number=number,
                client_ids=client_ids,
                network=self.network,
                global_model=self.get_global_model_params(),
            )
            self.set_global_model_params(model)
            return model
        return aggregation.aggregate(
            self.aggregator,
            uploads,
            number=number,
            client_ids=client_ids,
            clients=range(int(self.args.client_num_in_total)),
            network=self.network,
            test_data=self.test_global,
            local_data=self.train_data_local_dict,
        ).model


class HookedFedAVGTrainer(FedAVGTrainer):  # type: ignore[misc]  # fedml has no types
    """FedAVGTrainer with the data poisoned first where FedML's label_flipping says so."""

    train_local: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        give_logits(self.trainer)

    def train(self, round_idx: Any = None) -> Any:
        """One round on this rank."""
        attacker = FedMLAttacker.get_instance()
        if attacker.is_data_poisoning_attack():
            # The attack counts its calls to know the round and to draw, for which it must have seen every client.
            attacker.attacker.counter = round_idx * self.args.client_num_per_round + self.args.rank - 1
            if attacker.is_to_poison_data():
                self.train_local = attacker.poison_data(self.train_local)
        everybody, sampled = int(self.args.client_num_in_total), int(self.args.client_num_per_round)
        self.train_local = training_data(
            self.train_local,
            self.trainer.model,
            client=self.client_index,
            number=int(round_idx) + 1,
            clients=range(everybody),
            # The server's draw, which this rank does not see: FedML seeds numpy with the round.
            present=range(everybody)
            if everybody == sampled
            else np.random.RandomState(round_idx).choice(everybody, sampled, replace=False).tolist(),
        )
        return super().train(round_idx)


class HookedFedAVGClientManager(FedAVGClientManager):  # type: ignore[misc]  # fedml has no types
    """FedAVGClientManager that also ends after the first round, if that is the last."""

    def register_message_receive_handlers(self) -> None:
        """FedML's handlers, and one for the message of which it warns."""
        super().register_message_receive_handlers()
        _expect_the_first_message(self)

    def handle_message_init(self, msg_params: Any) -> None:
        """The first round."""
        super().handle_message_init(msg_params)
        if self.num_rounds == 1:
            self.finish()


class HookedFedAVGServerManager(FedAVGServerManager):  # type: ignore[misc]  # fedml has no types
    """FedAVGServerManager that starts quietly."""

    def register_message_receive_handlers(self) -> None:
        """FedML's handlers, and one for the message of which it warns."""
        super().register_message_receive_handlers()
        _expect_the_first_message(self)


def _expect_the_first_message(manager: Any) -> None:
    """FedML sends itself "connection is ready", for which FedAvg has no handler, and logs a warning about that."""
    manager.register_message_receive_handler(CommunicationConstants.MSG_TYPE_CONNECTION_IS_READY, lambda _: None)


def _check_mpi() -> None:
    try:
        import mpi4py.MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:  # no mpi4py, or no MPI that it could load
        raise SettingsError(
            f"backend: MPI needs mpi4py and an MPI that it can load, found: {error}; "
            "for example: pip install mpi4py mpich."
        ) from None


def _check_world(args: Any) -> None:
    """Every client of a round needs a rank; FedML would go on without those that have none."""
    needed = int(args.client_num_per_round) + 1
    acts = getattr(args, "enable_defense", False) or getattr(args, "enable_attack", False)
    if acts and args.worker_num != needed:
        raise SettingsError(
            f"client_num_per_round: {needed - 1} needs {needed} MPI ranks, one for the server and one for each client, "
            f"found {args.worker_num}; start it with mpirun -np {needed}."
        )
