r"""FedNova over MPI: clients upload models that are normalized by their number of steps, and these are judged.

Reference: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS
2020. The normalized update d_i of client i is its update divided by a_i, its number of steps for plain SGD. The server
moves by tau sum_i p_i d_i, with the clients' shares p_i of the samples and tau = sum_i p_i a_i (with the numbers of
steps instead of a_i if the clients have a proximal term). That is the weighted mean of the models

    w_i = w_g + tau d_i,

which every client can make itself, since FedML's simulator gives every rank all clients' data, and so their steps. No
client can claim another number of steps than it has.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import Any

import torch
from fedml.ml.trainer.fednova_trainer import FedNova, FedNovaModelTrainer
from typing_extensions import override

from fedml_gradcam_ae.contract.updates import is_whole
from fedml_gradcam_ae.hooks.logits import key
from fedml_gradcam_ae.hooks.simulation.mpi_clients import HookedFedAVGTrainer
from fedml_gradcam_ae.networks.outputs import answer_with_logits


class DividesNoWholeNumbers(FedNovaModelTrainer):  # type: ignore[misc]  # fedml has no types
    """FedNovaModelTrainer for networks that count batches (BatchNorm) as well; FedML cannot divide whole numbers."""

    def get_local_norm_grad(self, opt: Any, cur_params: Any, init_params: Any, weight: float = 0) -> Any:
        """Return -p_i d_i by name, of the tensors that training moves."""
        moving = {name: tensor for name, tensor in cur_params.items() if not is_whole(tensor)}
        return super().get_local_norm_grad(opt, moving, init_params, weight)


class HookedFedNovaTrainer(HookedFedAVGTrainer):
    """FedAVGTrainer that uploads the normalized model of FedNova."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if isinstance(self.trainer, DividesNoWholeNumbers):
            answer_with_logits(self.trainer.model, key())

    @override
    def train(self, round_idx: Any = None) -> Any:
        """Train one round of one client, and return its normalized state dict and its number of samples.

        Args:
            round_idx: the round, counted from 0.
        """
        self.poison(int(round_idx))
        self.args.round_idx = round_idx
        start = copy.deepcopy(self.trainer.get_model_params())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This overload of add_ is deprecated")
            _, descent, _ = self.trainer.train(self.train_local, self.device, self.args, ratio=1.0)
        tau = self.effective_steps(int(round_idx))
        normalized = {name: start[name] - tau * change.to(start[name].device) for name, change in descent.items()}
        return OrderedDict({**self.trainer.get_model_params(), **normalized}), self.local_sample_number

    def effective_steps(self, round_idx: int) -> float:
        """Return tau of a round.

        Args:
            round_idx: the round, counted from 0.
        """
        present = self.present(round_idx)
        samples = [self.train_data_local_num_dict[client] for client in present]
        steps = [int(self.args.epochs) * len(self.train_data_local_dict[client]) for client in present]
        return float(sum(n * steps_of(self.args, k) for n, k in zip(samples, steps, strict=True)) / sum(samples))


def steps_of(args: Any, steps: int) -> float:
    """Return tau_i of a client, as FedML's own optimizer counts it.

    Args:
        args: FedML's args.
        steps: the client's number of local steps, at least 1.
    """
    still = torch.nn.Parameter(torch.zeros(1))
    still.grad = torch.zeros(1)
    optimizer = FedNova([still], ratio=1.0, gmf=args.gmf, mu=args.mu, lr=args.learning_rate, momentum=args.momentum)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This overload of add_ is deprecated")
        for _ in range(steps):
            optimizer.step()
    return float(FedNovaModelTrainer.get_local_tau_eff(None, optimizer))
