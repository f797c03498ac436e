"""The server of the MPI simulator on rank 0: an aggregator for each optimizer that honors attacks and defenses."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from fedml.ml.aggregator.agg_operator import FedMLAggOperator
from fedml.simulation.mpi.fedavg.FedAVGAggregator import FedAVGAggregator
from fedml.simulation.mpi.fedavg_seq.FedAVGAggregator import FedAVGAggregator as FedAvgSeqAggregator
from fedml.simulation.mpi.fedopt.FedOptAggregator import FedOptAggregator
from fedml.simulation.mpi.fedopt.optrepo import OptRepo
from fedml.simulation.mpi.fedopt_seq.FedOptAggregator import FedOptAggregator as FedOptSeqAggregator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.settings import SettingsError, unknown
from fedml_gradcam_ae.contract.tied import tied_names, with_one_value
from fedml_gradcam_ae.hooks.attacker import with_type
from fedml_gradcam_ae.hooks.logits import give_logits
from fedml_gradcam_ae.hooks.simulation.momentum import ServerMomentum
from fedml_gradcam_ae.hooks.simulation.simulated_server import SimulatedServer
from fedml_gradcam_ae.hooks.success import publish_success
from fedml_gradcam_ae.hooks.surroundings import Uploads


class Judged:
    """One of FedML's aggregators that aggregates through FedML's ServerAggregator, in which attacks and defenses act.

    Mixed in before FedML's class.
    """

    args: Any
    aggregator: Any
    device: Any
    test_global: Any
    model_dict: dict[int, Any]
    sample_num_dict: dict[int, Any]
    train_data_local_dict: Any
    train_data_local_num_dict: Any
    worker_num: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.network = copy.deepcopy(self.aggregator.model).to(self.device).eval()
        give_logits(self.aggregator)
        self.sampled: Any = []
        self.number = 0
        self.server = SimulatedServer(self.args, self.network, self.test_global)

    def client_sampling(self, *args: Any) -> Any:
        """Return FedML's choice of clients and keep it: client n of the choice, from 0, trains on rank n + 1."""
        self.sampled = super().client_sampling(*args)  # type: ignore[misc]  # FedML's class comes next
        return self.sampled

    def received(self) -> tuple[list[Any], Uploads]:
        """Return the round's clients and their uploads, pairs (sample count, state dict), in the same order."""
        uploads = [(self.sample_num_dict[index], self.model_dict[index]) for index in range(self.worker_num)]
        return list(self.sampled[: self.worker_num]), uploads

    def average(self, uploads: Uploads) -> Any:
        """Return FedML's own mean, weighted by samples.

        Args:
            uploads: pairs (sample count, state dict).
        """
        # FedML's average depends on the optimizer's name; for some names it is a sum, or missing.
        return FedMLAggOperator.agg(with_type(self.args, "federated_optimizer", "FedAvg"), uploads)

    def aggregate(self) -> Any:
        """Return the new global model.

        Without attack, defense and watching detector this is FedML's own average of the usable uploads.
        """
        self.number += 1
        # The uploads are on the CPU, while testing has moved the global model to the device.
        self.aggregator.model.cpu()
        clients, uploads = self.received()
        return self.server.aggregate(
            self.aggregator,
            self.average,
            uploads,
            number=self.number,
            client_ids=clients,
            local_data=self.train_data_local_dict,
        )

    def test_on_server_for_all_clients(self, round_idx: int) -> None:
        """Test the new global model as FedML's FedAvg does, and publish the success rate of a targeted attack.

        Args:
            round_idx: the round, counted from 0.
        """
        # FedProx's and FedOpt's own tests take the four figures of FedML's ServerAggregator for a mapping.
        FedAVGAggregator.test_on_server_for_all_clients(self, round_idx)
        if round_idx % self.args.frequency_of_the_test == 0 or round_idx == self.args.comm_round - 1:
            publish_success(round_idx + 1, self.aggregator.model, self.test_global)


class MovesOn(Judged):
    """An aggregator whose server goes on from the mean to another model."""

    def move(self, aggregate: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the new global model, a state dict, which the aggregator has then as well.

        Args:
            aggregate: the state dict that the round's aggregation came to.
            before: the state dict of the global model before the round, which the aggregator has at the call.
        """
        raise NotImplementedError

    @override
    def aggregate(self) -> Any:
        """Return the new global model."""
        before = {name: tensor.detach().cpu().clone() for name, tensor in self.aggregator.get_model_params().items()}
        aggregate = super().aggregate()
        if all(torch.equal(tensor, aggregate[name].cpu()) for name, tensor in before.items()):
            return aggregate  # a model that is to stay does not coast on
        self.aggregator.set_model_params(before)
        return self.move(aggregate, before)


class MovesByServerOptimizer(MovesOn):
    """An aggregator whose mean becomes the pseudo-gradient of an optimizer on the server."""

    opt: torch.optim.Optimizer

    def _instantiate_opt(self) -> torch.optim.Optimizer:
        """Return the optimizer that `server_optimizer` names; FedML fails for one without a momentum, such as Adam."""
        name = str(getattr(self.args, "server_optimizer", None))
        if name.lower() not in OptRepo.repo:
            raise SettingsError(unknown(f"train_args.server_optimizer {name!r}", name.lower(), OptRepo.repo))
        kind = OptRepo.name2cls(name)
        keys = {"lr": "server_lr", "momentum": "server_momentum"}
        accepted = inspect.signature(kind).parameters
        given = {key: getattr(self.args, own, None) for key, own in keys.items() if key in accepted}
        for key, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingsError(
                    f"train_args.{keys[key]} must be a number for {name} on the server, found {value!r}."
                )
        trained = [parameter for parameter in self.aggregator.model.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer = kind(trained, **given)
        return optimizer

    @override
    def move(self, aggregate: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.opt.zero_grad()
        self.set_model_global_grads(aggregate)  # type: ignore[attr-defined]  # of FedML's class
        self.opt.step()
        moved: Mapping[str, Tensor] = self.aggregator.get_model_params()
        return moved


class MovesWithMomentum(MovesOn):
    """An aggregator whose server has FedNova's momentum, `gmf`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.momentum = ServerMomentum(self.args.gmf, [name for name, _ in self.aggregator.model.named_parameters()])

    @override
    def move(self, aggregate: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = with_one_value(self.momentum.model(aggregate, before), tied_names(self.network))
        self.aggregator.set_model_params(moved)
        return moved


class SeveralPerRank(Judged):
    """An aggregator of ranks that train several clients each and upload each client's model."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.schedule: Any = []

    def generate_client_schedule(self, *args: Any) -> Any:
        """Return FedML's list of clients for each rank and keep it."""
        self.schedule = super().generate_client_schedule(*args)  # type: ignore[misc]
        return self.schedule

    @override
    def received(self) -> tuple[list[Any], Uploads]:
        """Return the round's clients and their uploads, pairs (sample count, state dict), in the same order."""
        found = [
            (client, (self.train_data_local_num_dict[client], self.model_dict[rank].get(place)))
            for rank, clients in enumerate(self.schedule)
            for place, client in enumerate(clients)
        ]
        return [client for client, _ in found], [upload for _, upload in found]


class HookedFedAVGAggregator(Judged, FedAVGAggregator):  # type: ignore[misc]  # fedml has no types
    """FedAvg's aggregator, in which attacks and defenses act."""

    @override
    def average(self, uploads: Uploads) -> Any:
        """Return FedAvg's own mean, weighted by samples.

        Args:
            uploads: pairs (sample count, state dict).
        """
        return self._fedavg_aggregation_(uploads)


class HookedFedProxAggregator(Judged, FedAVGAggregator):  # type: ignore[misc]
    """The aggregator of FedProx, whose server is FedAvg's."""


class HookedFedOptAggregator(MovesByServerOptimizer, FedOptAggregator):  # type: ignore[misc]
    """FedOpt's aggregator, in which attacks and defenses act."""


class HookedFedAvgSeqAggregator(SeveralPerRank, FedAvgSeqAggregator):  # type: ignore[misc]
    """The aggregator of FedAvg_seq, in which attacks and defenses act."""


class HookedFedOptSeqAggregator(SeveralPerRank, MovesByServerOptimizer, FedOptSeqAggregator):  # type: ignore[misc]
    """The aggregator of FedOpt_seq, in which attacks and defenses act."""


class HookedFedNovaAggregator(SeveralPerRank, MovesWithMomentum, FedAvgSeqAggregator):  # type: ignore[misc]
    """The aggregator of FedNova, in which attacks and defenses act on normalized models."""
