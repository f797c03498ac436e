"""SCAFFOLD in the single-process simulator: models are judged, and control variates count as their clients' models do.

Reference: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, option II.
A client that ends at y_i after K_i steps of size eta from x uploads y_i - x and the change of its control variate,
-c + (x - y_i) / (K_i eta), which follows from y_i. So an attack that replaces y_i changes both.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from fedml.simulation.sp.scaffold.scaffold_trainer import ScaffoldTrainer
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks.simulation.extras import aggregate_extras, unusable
from fedml_gradcam_ae.hooks.simulation.judged_trainer import JudgedTrainer
from fedml_gradcam_ae.hooks.surroundings import Uploads, identity


class HookedScaffoldTrainer(JudgedTrainer, ScaffoldTrainer):  # type: ignore[misc]  # fedml has no types
    """ScaffoldTrainer in which attacks and defenses act, and in which clients keep their control variates."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.names = [name for name, _ in self.network.named_parameters()]  # what the control variates are of
        self._steps: dict[ClientId, int] = {}  # K_i by client
        self._count = 0
        self.model_trainer.train = self._counted

    def _counted(self, *given: Any) -> int:
        """Train as FedML's ClientTrainer does, and keep the number of steps that it returns."""
        self._count = type(self.model_trainer).train(self.model_trainer, *given)
        return self._count

    @override
    def train_client(self, client: Any, *given: Any, **options: Any) -> Any:
        """Train a client, and add the change of its control variate to that which it keeps.

        Args:
            client: FedML's client.
            given: the global model, and the server's control variate.
            options: none.
        """
        change, variate = super().train_client(client, *given, **options)
        self._steps[identity(client.client_idx)] = self._count
        own = client.c_model_local.state_dict()
        sums = {name: own[name] + variate[name] for name in self.names}
        if all(bool(tensor.isfinite().all()) for tensor in sums.values()):  # or the client could never come back
            for name, tensor in sums.items():
                own[name].copy_(tensor)
        return change, variate

    @override
    def _aggregate(self, w_locals: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return the change of the model, and n/N times the mean change of the control variates of n of N clients.

        Args:
            w_locals: triples (sample count, change of each tensor, change of the control variate).
        """
        before = {name: tensor.clone() for name, tensor in self.aggregator.get_model_params().items()}
        ids = [identity(client) for client in self.sampled]
        trained = [OrderedDict((name, before[name] + change[name]) for name in before) for _, change, _ in w_locals]
        variates = {
            client: {name: variate[name] for name in self.names}
            for client, (_, _, variate) in zip(ids, w_locals, strict=True)
        }
        uploads: Uploads = [(n, OrderedDict(model)) for (n, _, _), model in zip(w_locals, trained, strict=True)]
        mean = self.judge(uploads, unusable(variates, "control variate"))
        self._follow(variates, dict(zip(ids, trained, strict=True)))
        variate = aggregate_extras(variates, self.round, self.average)
        share = len(ids) / int(self.args.client_num_in_total)
        total = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
        total |= {name: tensor * share for name, tensor in (variate or {}).items()}
        return {name: mean[name] - tensor for name, tensor in before.items()}, total

    def _follow(self, variates: dict[ClientId, dict[str, Tensor]], trained: dict[ClientId, Any]) -> None:
        """Make the control variate of each client whose model was replaced that of the replaced model."""
        admitted = self.round.admitted
        for client, upload in () if admitted is None else zip(admitted.client_ids, admitted.uploads, strict=True):
            length = self._steps[client] * self.args.learning_rate  # K_i eta
            for name in self.names:
                moved = variates[client][name] + (trained[client][name] - upload[name]) / length
                largest = torch.finfo(moved.dtype).max
                variates[client][name] = moved.nan_to_num(posinf=largest, neginf=-largest)
