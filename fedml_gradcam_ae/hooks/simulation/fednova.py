r"""FedNova in the single-process simulator: normalized updates are judged.

Reference: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS
2020. Client i uploads d_i, its update divided by a_i, which is its number of steps for plain SGD; the server moves by
tau sum_i p_i d_i with tau = sum_i p_i a_i. So the model of client i that is judged is

    w_g + t d_i,  t = median_i a_i,

of which the server's step is a weighted mean but for the factor tau / t. That factor comes from the clients that are
kept, with the defense's weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median_low
from typing import Any

import torch
from fedml.simulation.sp.fednova.fednova_trainer import FedNovaTrainer
from torch import nn
from typing_extensions import override

from fedml_gradcam_ae.contract.claims import LARGEST_WEIGHT, counted
from fedml_gradcam_ae.contract.updates import is_whole
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer
from fedml_gradcam_ae.hooks.simulation.measuring import measuring
from fedml_gradcam_ae.hooks.simulation.optimizers import check_network
from fedml_gradcam_ae.hooks.surroundings import Uploads, identity


class HookedFedNovaTrainer(JudgedTrainer, FedNovaTrainer):  # type: ignore[misc]  # fedml has no types
    """FedNovaTrainer in which attacks and defenses act.

    Raises:
        SettingsError: if the network counts batches, at which FedML's FedNova stops.
    """

    def __init__(self, dataset: Any, model: Any, device: Any, args: Any) -> None:
        check_network(args, [name for name, tensor in model.state_dict().items() if is_whole(tensor)])
        super().__init__(dataset, model, device, args)

    @property
    @override
    def current_model(self) -> nn.Module:
        """The network that FedML's loop keeps the global model in."""
        model: nn.Module = self.model_global
        return model

    @override
    @contextmanager
    def _trainer(self) -> Iterator[None]:
        yield  # FedNova's clients train copies of the network without a ClientTrainer

    def setup_clients(self, *args: Any) -> None:
        """Make FedML's clients, and have them train by this class."""
        super().setup_clients(*args)
        self.hook_clients(self.client_list)

    def client_sampling(self, round_idx: int, *counts: Any) -> Any:
        """Return FedML's choice of clients and keep it."""
        return self.begin_round(round_idx, super().client_sampling(round_idx, *counts))

    def aggregate(self, params: Any, norm_grads: Any, tau_effs: Any, tau_eff: Any = 0) -> Any:
        """Return the new global model, a state dict.

        Args:
            params: the global model's state dict.
            norm_grads: p_i d_i of each client, by name.
            tau_effs: p_i a_i of each client.
            tau_eff: unused, as FedML's loop leaves it out.
        """
        samples = [self.train_data_local_num_dict[client] for client in self.sampled]
        ids = [identity(client) for client in self.sampled]
        shares = [count / sum(samples) for count in samples]
        steps = [float(tau) / share if share else 0.0 for tau, share in zip(tau_effs, shares, strict=True)]
        usual = median_low([a for a in steps if 0 < a < torch.inf] or [1.0])
        uploads: Uploads = []
        for count, share, gradients in zip(samples, shares, norm_grads, strict=True):
            factor = usual / share if share else 0.0
            model = {name: (params[name] - gradient * factor).cpu() for name, gradient in gradients.items()}
            uploads.append((count, OrderedDict(model)))
        rejected: dict[ClientId, str] = {
            client: f"its number of steps must be positive, found {a:g}"
            for client, a in zip(ids, steps, strict=True)
            if not 0 < a < torch.inf
        }
        mean = self.judge(uploads, rejected)
        admitted = self.round.admitted
        if admitted is None or self.round.report.global_model_stays:
            return params
        if not aggregation.defense_or_attack_active():
            kept = [ids.index(client) for client in admitted.client_ids]
            part = sum(shares[i] for i in kept)
            if len(kept) == len(ids):
                return super().aggregate(params, norm_grads, tau_effs)
            usable = [{name: gradient / part for name, gradient in norm_grads[i].items()} for i in kept]
            return super().aggregate(params, usable, [tau_effs[i] / part for i in kept])
        factor = self._effective_steps(ids, steps, usual) / usual
        return {name: tensor + (mean[name].to(tensor.device) - tensor) * factor for name, tensor in params.items()}

    def _effective_steps(self, ids: list[ClientId], steps: list[float], usual: float) -> float:
        """Return tau of the kept clients: sum_i w_i a_i with the weights w_i of the report, each a_i bounded."""
        weights = {client.client: client.weight for client in self.round.report.clients}
        if None in weights.values():  # a rule that makes a model of its own
            return usual
        of = dict(zip(ids, steps, strict=True))
        kept = [(of[client], weight) for client, weight in weights.items() if weight]
        bounded = counted([a for a, _ in kept], LARGEST_WEIGHT)
        return sum(a * weight for a, (_, weight) in zip(bounded, kept, strict=True)) or usual

    def local_test_on_all_clients(self, model_global: Any, round_idx: int) -> None:
        """Test the global model as FedML does, and publish the result.

        Args:
            model_global: the global model.
            round_idx: the round, counted from 0.
        """
        with measuring(self.client_list[0], self.args, round_idx):
            super().local_test_on_all_clients(model_global, round_idx)
        self.publish_tested(round_idx)
