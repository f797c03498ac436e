"""FLDetector's prediction of each client's next update from its last one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import flatten
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.maths.lbfgs import inner_products, lbfgs_coefficients

_LARGEST = torch.finfo(torch.float32).max  # stored updates are float32; larger numbers are clamped to it


class UpdateHistory:
    """The last steps of the global model and the last update of each client, from which updates are predicted.

    A client whose last update was u_i, from the model w_t', is predicted to upload u_i + H (w_t - w_t') from the
    model w_t, by the mean value theorem. H is the L-BFGS matrix of the pairs (w_j - w_(j-1), u_j - u_(j-1)) of the last
    rounds, where u_j is the mean of the updates from the model w_j. With t' = t - 1 for all clients this is the
    paper's prediction. A client that paused for more rounds than the window holds is forgotten, since the steps that a
    prediction needs are no longer stored.

    Memory: 2 N + 2 vectors of d numbers, and one for each client of the last N rounds, float32.

    Args:
        window: N, the number of pairs that are kept.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._steps: list[Tensor] = []  # w_j - w_(j-1), the oldest first
        self._changes: list[Tensor] = []  # u_j - u_(j-1)
        self._model: Tensor | None = None  # w of the last round
        self._mean: Tensor | None = None  # u of the last round
        self._last: dict[ClientId, Tensor] = {}  # each client's last update
        self._seen: dict[ClientId, int] = {}  # the number of steps taken before each client's last update
        self._taken = 0

    def prediction_errors(self, round: Round) -> dict[ClientId, float]:
        """Return the distance ||predicted - u_i|| of each client that has a prediction, by client id.

        Args:
            round: the round, before it is recorded.

        Returns:
            Empty where there is no step of the global model or no known client; infinite distances are 1e150.
        """
        known = [i for i, client in enumerate(round.client_ids) if client in self._last]
        if not self._steps or not known or self._model is None:
            return {}
        clients = [round.client_ids[i] for i in known]
        pairs = len(self._steps)
        model = flatten(round.global_model, round.parameters).float().cpu()
        basis = [*self._steps, *self._changes, model - self._model]
        # w_t - w_t': the step to this round's model, and those since the client's last one.
        moved = torch.zeros(len(basis), len(known), dtype=torch.float64)
        moved[-1] = 1
        for column, client in enumerate(clients):
            moved[pairs - (self._taken - self._seen[client]) : pairs, column] = 1
        coefficients = lbfgs_coefficients(inner_products(basis), pairs, moved).T
        total, start = torch.zeros(len(known), dtype=torch.float64), 0
        for block in round.updates.blocks(reuse_buffer=True):
            part = slice(start, start := start + block.shape[1])
            predicted = coefficients @ torch.stack([vector[part] for vector in basis]).double()
            for row, client in zip(predicted, clients, strict=True):
                row += self._last[client][part]
            total += predicted.sub_(block[known].cpu()).square_().sum(1)
        return dict(zip(clients, total.sqrt().nan_to_num(posinf=1e150).tolist(), strict=True))

    def record(self, round: Round, weights: list[float]) -> None:
        """Add a round to the history.

        Args:
            round: the round, after it was judged.
            weights: each client's weight in the aggregate, sum 1.
        """
        model = flatten(round.global_model, round.parameters).float().cpu()
        for client in round.client_ids:
            if client not in self._last:
                self._last[client] = torch.empty(len(model), dtype=torch.float32)
        shares = torch.tensor(weights, dtype=torch.float64)
        mean, start = torch.empty(len(model), dtype=torch.float32), 0
        for block in round.updates.blocks(reuse_buffer=True):
            part = slice(start, start := start + block.shape[1])
            block = block.cpu().clamp_(-_LARGEST, _LARGEST)
            mean[part] = shares @ block
            for client, row in zip(round.client_ids, block, strict=True):
                self._last[client][part] = row
        if self._model is not None and self._mean is not None and not torch.equal(model, self._model):
            self._steps = [*self._steps, model - self._model][-self.window :]
            self._changes = [*self._changes, mean - self._mean][-self.window :]
            self._taken += 1
        self._model, self._mean = model, mean
        self._seen |= dict.fromkeys(round.client_ids, self._taken)
        for client in [client for client, taken in self._seen.items() if self._taken - taken > self.window]:
            del self._seen[client], self._last[client]

    def state(self) -> dict[str, Any]:
        """Return the state to save; it shares tensors that later rounds change in place."""
        return {
            "steps": list(self._steps),
            "changes": list(self._changes),
            "model": self._model,
            "mean": self._mean,
            "last": dict(self._last),
            "seen": dict(self._seen),
            "taken": self._taken,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._steps, self._changes = list(state["steps"]), list(state["changes"])
        self._model, self._mean = state["model"], state["mean"]
        self._last = {client: update.clone() for client, update in state["last"].items()}
        self._seen, self._taken = dict(state["seen"]), int(state["taken"])
