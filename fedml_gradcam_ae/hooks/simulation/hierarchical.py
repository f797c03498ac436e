"""HierarchicalFL in the single-process simulator: each group's server judges its clients, and the cloud judges groups.

Each group has a defense of its own, which remembers only that group's clients. The cloud's defense judges the models of
the groups as if they were clients, if there are at least LEAST_GROUPS of them; else the cloud averages the groups'
models. With fewer, no rule can tell one bad group from the rest, and one group left out by mistake is a large part of
all clients. Attackers are clients: no attack acts between the groups and the cloud.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.ml.aggregator.aggregator_creator import create_server_aggregator
from fedml.simulation.sp.hierarchical_fl.trainer import HierarchicalTrainer
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer, as_fedavg
from fedml_gradcam_ae.hooks.simulation.plain import plain_average
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.hooks.surroundings import Uploads

LEAST_GROUPS = 5  # 2 f + 3 for one bad group, f = 1: what Krum's guarantee needs


class OwnServer:
    """A server with a defense of its own, which FedML has one of per process.

    Args:
        args: FedML's args.
        trainer: the trainer whose clients upload to this server.
    """

    def __init__(self, args: Any, trainer: JudgedTrainer) -> None:
        self.aggregator = create_server_aggregator(copy.deepcopy(trainer.current_model).cpu(), as_fedavg(args))
        self._defender = FedMLDefender.get_instance().defender  # which FedML has just made
        self._server = SimulatedServer(args, trainer.network, trainer.test_global)

    def aggregate(self, start: Mapping[str, Tensor], *given: Any, **options: Any) -> dict[str, Tensor]:
        """Return the new model, as `SimulatedServer.aggregate` does.

        Args:
            start: the state dict that the clients started from.
            given: further arguments of `SimulatedServer.aggregate`.
            options: its keyword arguments.
        """
        shared = FedMLDefender.get_instance()
        others, shared.defender = shared.defender, self._defender
        try:
            self.aggregator.set_model_params(start)
            self._server.aggregate(self.aggregator, *given, **options)
            # As the network holds it: some rules make floats of whole numbers, at which the cloud's gate would stop.
            return {name: tensor.clone() for name, tensor in self.aggregator.get_model_params().items()}
        finally:
            shared.defender = others


class HookedHierarchicalTrainer(JudgedTrainer, HierarchicalTrainer):  # type: ignore[misc]  # fedml has no types
    """HierarchicalTrainer in which attacks and defenses act."""

    args: Any
    group_dict: Any

    @override
    def make_servers(self) -> None:
        """Make a server for each group, and the cloud's last, so that FedML's defender is the cloud's."""
        self._initial = copy.deepcopy(self.current_model.state_dict())
        self._servers = {group: OwnServer(self.args, self) for group in self.group_dict}
        lenient = copy.copy(self.args)
        lenient.on_too_few = "average"  # or a rule that needs more groups than there are would stop all progress
        self._cloud = OwnServer(lenient, self)

    @override
    def _setup_clients(self, *args: Any) -> None:
        super()._setup_clients(*args)
        for group in self.group_dict.values():
            self.hook_clients(list(group.client_dict.values()))
            group.train = partial(self._train_group, group)
            group._aggregate = partial(self._aggregate_group, group)

    @override
    def begin_round(self, round_idx: int, sampled: Any) -> Any:
        """Keep the groups of a round that begins.

        Args:
            round_idx: the round of the cloud, counted from 0.
            sampled: the ids of the drawn clients by group.

        Returns:
            `sampled`.
        """
        self._groups = sorted(sampled)
        self.sampled = [client for group in self._groups for client in sampled[group]]
        return sampled

    def _train_group(self, group: Any, round_idx: int, w_global: Any, sampled: Sequence[Any]) -> Any:
        """Train a group for one round of the cloud.

        Returns:
            Pairs (epoch, state dict), in the order of the epochs. FedML takes all but the last for tests alone, so with
            an attack or a defense on there is only the last, and each upload is judged once.
        """
        # In round 0 the loop gives the network's own state dict, which training changes on a CPU.
        self._center = copy.deepcopy(self._initial) if round_idx == 0 else w_global
        self._in_group = sampled
        return _last_if_judged(type(group).train(group, round_idx, self._center, sampled))

    @override
    def train_client(self, client: Any, *given: Any, **options: Any) -> Any:
        """Train a client for one round of its group, and count that round.

        Args:
            client: FedML's client.
            given: the round of the cloud and that of the group, both counted from 0, and the group's model.
            options: none.
        """
        cloud, group, self._start = given
        self.round_number = cloud * int(self.args.group_comm_round) + group + 1
        return _last_if_judged(super().train_client(client, *given, **options))

    def _aggregate_group(self, group: Any, w_locals: Uploads) -> Any:
        return self._servers[group.idx].aggregate(
            self._start,
            self.average,
            [(n, OrderedDict((name, tensor.cpu()) for name, tensor in model.items())) for n, model in w_locals],
            number=self.round_number,
            client_ids=self._in_group,
            local_data=self.train_data_local_dict,
            trained=self.sampled,
        )

    @override
    def _aggregate(self, w_locals: Uploads) -> Any:
        names = [f"group {group}" for group in self._groups]
        if FedMLDefender.get_instance().is_enabled and len(names) >= LEAST_GROUPS:
            with _without_attack():
                return self._cloud.aggregate(
                    self._center, self.average, w_locals, number=self.round_number, client_ids=names, local_data={}
                )
        return plain_average(
            self.average,
            w_locals,
            number=self.round_number,
            client_ids=names,
            network=self.network,
            global_model=self._center,
        ).model

    @override
    def _local_test_on_all_clients(self, round_idx: int) -> None:
        if aggregation.defense_or_attack_active():  # FedML counts epochs here, and reports count the groups' rounds
            round_idx //= int(self.args.epochs)
        super()._local_test_on_all_clients(round_idx)


def _last_if_judged(models: Any) -> Any:
    return models[-1:] if aggregation.defense_or_attack_active() else models


@contextmanager
def _without_attack() -> Iterator[None]:
    attacker = FedMLAttacker.get_instance()
    enabled, attacker.is_enabled = attacker.is_enabled, False
    try:
        yield
    finally:
        attacker.is_enabled = enabled
