"""The part that FedML's trainers of the single-process simulator have in common: uploads are judged before they count.

FedML has one class per optimizer, with a loop of its own. Each class here is mixed in before FedML's class, whose loop
stays as it is: it calls the methods below to draw clients, to train them, to aggregate and to test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.ml.aggregator.agg_operator import FedMLAggOperator
from fedml.ml.aggregator.aggregator_creator import create_server_aggregator
from torch import nn
from typing_extensions import override

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.attacker import training_data
from fedml_gradcam_ae.hooks.logits import giving_logits
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.hooks.success import publish_success
from fedml_gradcam_ae.hooks.surroundings import Uploads
from fedml_gradcam_ae.recording import events


class JudgedTrainer:
    """One of FedML's trainers that aggregates through FedML's ServerAggregator, in which attacks and defenses act.

    Args:
        given: the arguments of FedML's class.
    """

    args: Any
    device: Any
    model_trainer: Any
    client_list: Sequence[Any]
    test_global: Any
    train_data_local_dict: Mapping[Any, Any]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # The aggregator gets a copy, since the trainer's model holds the last client's weights during aggregation.
        self.aggregator = create_server_aggregator(copy.deepcopy(self.current_model).cpu(), as_fedavg(self.args))
        self.network = copy.deepcopy(self.current_model).to(self.device).eval()
        self.round_number = 0
        self.sampled: Sequence[Any] = []
        self.server: SimulatedServer | None = None
        self._round: aggregation.Aggregated | None = None

    @property
    def current_model(self) -> nn.Module:
        """The network that FedML's loop keeps the global model in, when no client is training."""
        model: nn.Module = self.model_trainer.model
        return model

    @property
    def round(self) -> aggregation.Aggregated:
        """The result of the round that was judged last, until the next one begins."""
        assert self._round is not None
        return self._round

    def train(self) -> None:
        """Run all rounds.

        Raises:
            SettingsError: if `simulation_args` or the optimizer do not go together with the defense.
            ValueError: if the defense cannot work with the network or the data.
        """
        self.make_servers()
        with aggregation.run_listeners(self.args), self._trainer():
            super().train()  # type: ignore[misc]  # FedML's class comes next

    def make_servers(self) -> None:
        """Make the server, which checks that the defense can work here."""
        self.server = SimulatedServer(self.args, self.network, self.test_global)

    @contextmanager
    def _trainer(self) -> Iterator[None]:
        """Prepare FedML's ClientTrainer for the run."""
        with giving_logits(self.model_trainer), copying(self.model_trainer):
            yield

    def _setup_clients(self, *args: Any) -> None:
        super()._setup_clients(*args)  # type: ignore[misc]
        self.hook_clients(self.client_list)

    def hook_clients(self, clients: Sequence[Any]) -> None:
        """Make FedML's clients train through `train_client`.

        Args:
            clients: FedML's clients.
        """
        for client in clients:
            client.train = partial(self.train_client, client)

    def _client_sampling(self, round_idx: int, *counts: Any) -> Any:
        return self.begin_round(round_idx, super()._client_sampling(round_idx, *counts))  # type: ignore[misc]

    def begin_round(self, round_idx: int, sampled: Any) -> Any:
        """Keep the number, the clients and the global model of a round that begins.

        Args:
            round_idx: the round, counted from 0.
            sampled: the ids of the clients that FedML drew.

        Returns:
            `sampled`.
        """
        self.round_number, self.sampled, self._round = round_idx + 1, sampled, None
        self.aggregator.set_model_params(self.current_model.state_dict())
        return sampled

    def train_client(self, client: Any, *given: Any, **options: Any) -> Any:
        """Train a client, on poisoned data if an attack asks for it.

        FedML's label_flipping poisons data in ClientTrainer.update_dataset, which this simulator never calls.

        Args:
            client: FedML's client.
            given: the arguments of its `train`.
            options: the keyword arguments of its `train`.
        """
        own, attacker = client.local_training_data, FedMLAttacker.get_instance()
        if attacker.is_data_poisoning_attack() and attacker.is_to_poison_data():
            client.local_training_data = WholeLabels(attacker.poison_data(client.local_training_data))
        client.local_training_data = training_data(
            client.local_training_data,
            self.current_model,
            client=client.client_idx,
            number=self.round_number,
            clients=range(int(self.args.client_num_in_total)),
            present=self.sampled,
        )
        try:
            return type(client).train(client, *given, **options)
        finally:
            client.local_training_data = own

    def judge(self, uploads: Uploads, rejected: Mapping[ClientId, str] | None = None) -> Any:
        """Return the mean of the uploads that attack, gate and defense leave, a state dict.

        Args:
            uploads: pairs (sample count, state dict), in the order of the clients.
            rejected: reasons by client id, for clients whose upload is known to be unusable.
        """
        assert self.server is not None
        self._round = self.server.run_round(
            self.aggregator,
            self.average,
            uploads,
            number=self.round_number,
            client_ids=self.sampled,
            local_data=self.train_data_local_dict,
            rejected=rejected,
        )
        return self._round.model

    def hold_still(self) -> None:
        """Take the gradient away from the server's optimizer if the global model is to stay, so that it does nothing.

        Without this, its momentum would move the model in a round without a kept upload.
        """
        if self.round.report.global_model_stays:
            for parameter in self.current_model.parameters():
                parameter.grad = None

    def average(self, uploads: Uploads) -> Any:
        """Return FedML's mean, weighted by samples.

        Args:
            uploads: pairs (sample count, state dict).
        """
        return FedMLAggOperator.agg(self.aggregator.args, uploads)

    def _aggregate(self, w_locals: Uploads) -> Any:
        return self.judge(w_locals)

    def _local_test_on_all_clients(self, round_idx: int) -> None:
        super()._local_test_on_all_clients(round_idx)  # type: ignore[misc]
        self.publish_tested(round_idx)

    def publish_tested(self, round_idx: int) -> None:
        """Publish what listeners get after the test of a global model.

        Args:
            round_idx: the round, counted from 0.
        """
        tested, number = self.current_model, round_idx + 1
        success = publish_success(number, tested, self.test_global)
        events.publish(events.Tested(number=number, network=tested, success=success))


class MeanIsGlobal(JudgedTrainer):
    """A trainer whose new global model is the mean, so that a defense may keep models of its own beside it."""

    @override
    def train_client(self, client: Any, *given: Any, **options: Any) -> Any:
        """Train a client from the start that the defense chooses.

        Args:
            client: FedML's client.
            given: the global model.
            options: none.
        """
        return super().train_client(client, aggregation.start_for(client.client_idx, *given), **options)

    @override
    def _local_test_on_all_clients(self, round_idx: int) -> None:
        trained = self.model_trainer.model
        self.model_trainer.model = aggregation.predictor(trained)
        try:
            super()._local_test_on_all_clients(round_idx)
        finally:
            self.model_trainer.model = trained


class WholeLabels:
    """Batches with labels of whole numbers, of which FedML's label_flipping makes floats that most trainers refuse.

    Args:
        batches: pairs (images, labels).
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return ((images, labels.long()) for images, labels in self.batches)


@contextmanager
def copying(trainer: Any) -> Iterator[None]:
    """Return a context manager in which a ClientTrainer gives copies of its model's weights.

    FedML's loops take the trainer's own state dict as the global model; on a CPU, training the first client changes it.

    Args:
        trainer: FedML's ClientTrainer.
    """
    live: Callable[[], Any] = trainer.get_model_params
    trainer.get_model_params = lambda: copy.deepcopy(live())
    try:
        yield
    finally:
        del trainer.get_model_params


def as_fedavg(args: Any) -> Any:
    """Return FedML's args for a ServerAggregator that averages as FedAvg does.

    FedML's average depends on the optimizer's name; for some names it is a sum, or missing.

    Args:
        args: FedML's args, which are returned themselves if the optimizer is FedAvg.
    """
    if args.federated_optimizer == "FedAvg":
        return args
    averaging = copy.copy(args)
    averaging.federated_optimizer = "FedAvg"
    return averaging
