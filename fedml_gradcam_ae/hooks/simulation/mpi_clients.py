"""The clients of the MPI simulator, on every rank but 0, and the managers of the messages on all ranks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from fedml.core.distributed.communication.constants import CommunicationConstants
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.simulation.mpi.fedavg.FedAvgClientManager import FedAVGClientManager
from fedml.simulation.mpi.fedavg.FedAvgServerManager import FedAVGServerManager
from fedml.simulation.mpi.fedavg.FedAVGTrainer import FedAVGTrainer
from fedml.simulation.mpi.fedavg_seq.FedAvgClientManager import FedAVGClientManager as FedAvgSeqClientManager
from fedml.simulation.mpi.fedavg_seq.FedAvgServerManager import FedAVGServerManager as FedAvgSeqServerManager

from fedml_gradcam_ae.hooks.attacker import training_data
from fedml_gradcam_ae.hooks.logits import give_logits


class HookedFedAVGTrainer(FedAVGTrainer):  # type: ignore[misc]  # fedml has no types
    """FedAVGTrainer that poisons the training data if FedML's `label_flipping` or one of the plug-in's attacks asks."""

    train_local: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        give_logits(self.trainer)

    def present(self, round_idx: int) -> list[int]:
        """Return the clients that the server drew for a round, in its order.

        Args:
            round_idx: the round, counted from 0.
        """
        total, sampled = int(self.args.client_num_in_total), int(self.args.client_num_per_round)
        if total == sampled:
            return list(range(total))
        # Repeated here: FedML seeds numpy with the round's number.
        drawn: list[int] = np.random.RandomState(round_idx).choice(total, sampled, replace=False).tolist()
        return drawn

    def poison(self, round_idx: int) -> None:
        """Poison the client's training data if an attack asks for it.

        Args:
            round_idx: the round, counted from 0.
        """
        present, attacker = self.present(round_idx), FedMLAttacker.get_instance()
        if attacker.is_data_poisoning_attack():
            # The attack derives the round and its random draws from its count of calls, one for each client. Each
            # rank sees its own calls only, so the count is set to what one process would have counted.
            attacker.attacker.counter = round_idx * len(present) + present.index(int(self.client_index))
            if attacker.is_to_poison_data():
                self.train_local = attacker.poison_data(self.train_local)
        self.train_local = training_data(
            self.train_local,
            self.trainer.model,
            client=self.client_index,
            number=round_idx + 1,
            clients=range(int(self.args.client_num_in_total)),
            present=present,
        )

    def train(self, round_idx: Any = None) -> Any:
        """Train one round of one client, and return its state dict and its number of samples.

        Args:
            round_idx: the round, counted from 0.
        """
        self.poison(int(round_idx))
        return super().train(round_idx)


class ExpectsTheFirstMessage:
    """A manager that starts without FedML's needless warning. Mixed in before FedML's class.

    FedML sends "connection is ready" to itself. It has no handler for it, so it logs a warning.
    """

    def register_message_receive_handlers(self) -> None:
        """Register FedML's handlers, and one for the message for which FedML logs a warning."""
        super().register_message_receive_handlers()  # type: ignore[misc]  # FedML's class comes next
        kind = CommunicationConstants.MSG_TYPE_CONNECTION_IS_READY
        self.register_message_receive_handler(kind, lambda _: None)  # type: ignore[attr-defined]


class EndsAfterTheFirstRound(ExpectsTheFirstMessage):
    """A client's manager that ends after the first round if the run has only one round."""

    def handle_message_init(self, msg_params: Any) -> None:
        """Train the first round, and finish if it is the only one."""
        super().handle_message_init(msg_params)  # type: ignore[misc]
        if self.num_rounds == 1:  # type: ignore[attr-defined]
            self.finish()  # type: ignore[attr-defined]


class HookedFedAVGClientManager(EndsAfterTheFirstRound, FedAVGClientManager):  # type: ignore[misc]
    """FedAVGClientManager that starts without a warning and ends after the only round."""


class HookedFedAVGServerManager(ExpectsTheFirstMessage, FedAVGServerManager):  # type: ignore[misc]
    """FedAVGServerManager that starts without a warning."""


class HookedFedAvgSeqClientManager(EndsAfterTheFirstRound, FedAvgSeqClientManager):  # type: ignore[misc]
    """FedAvg_seq's client manager that uploads the model of each of its clients instead of their weighted sum."""

    def add_client_model(self, local_agg_model_params: Any, model_params: Any, weight: float = 1.0) -> None:
        """Add one client's model to what this rank uploads.

        Args:
            local_agg_model_params: the models of this rank's clients so far, by their place in its list of clients.
            model_params: the client's state dict, which the next client's training changes.
            weight: the client's share of the samples, which the server knows.
        """
        local_agg_model_params[len(local_agg_model_params)] = copy.deepcopy(model_params)


class HookedFedAvgSeqServerManager(ExpectsTheFirstMessage, FedAvgSeqServerManager):  # type: ignore[misc]
    """FedAvg_seq's server manager that starts without a warning."""
