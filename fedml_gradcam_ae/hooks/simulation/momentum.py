"""Momentum of clients and of the server over rounds, on the trainable parameters of state dicts.

Sources: clients, Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021, algorithm 2;
server, Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (FedAvgM). All other tensors, such as BatchNorm's statistics, have no momentum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId


class WorkerMomentum:
    """The momentum m of each client.

    Args:
        factor: b, in [0, 1).
        names: the trainable parameters.

    Example:
        >>> center = {"weight": torch.zeros(1)}
        >>> momentum = WorkerMomentum(0.9, ["weight"])
        >>> [float(momentum.upload(7, {"weight": torch.tensor([step])}, center)["weight"]) for step in (1.0, 2.0)]
        [1.0, 1.100000023841858]
    """

    def __init__(self, factor: float, names: Sequence[str]) -> None:
        self.factor, self.names = factor, names
        self._by_client: dict[ClientId, dict[str, Tensor]] = {}

    def upload(
        self, client: ClientId, trained: Mapping[str, Tensor], center: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return w_g + m with m = (1 - b) u + b m'; the first time that a client takes part, m = u.

        Args:
            client: the client's id.
            trained: the state dict that the client trained.
            center: the state dict w_g that its training began with.

        Returns:
            A state dict. It is `trained` if that is not finite; the client's momentum stays as it was then.
        """
        updates = {name: trained[name] - center[name].to(trained[name].device) for name in self.names}
        if not all(bool(update.isfinite().all()) for update in updates.values()):
            return dict(trained)
        before = self._by_client.get(client)
        if before is None:
            self._by_client[client] = updates
            return dict(trained)  # w_g + u, without rounding
        updates = {name: torch.lerp(update, before[name], self.factor) for name, update in updates.items()}
        self._by_client[client] = updates
        return {**trained, **{name: center[name].to(update.device) + update for name, update in updates.items()}}


class ServerMomentum:
    """The momentum v of the server.

    Args:
        factor: b, in [0, 1).
        names: the trainable parameters.

    Example:
        >>> momentum = ServerMomentum(0.5, ["weight"])
        >>> first = momentum.model({"weight": torch.tensor([1.0])}, center={"weight": torch.tensor([0.0])})
        >>> first, momentum.model({"weight": torch.tensor([2.0])}, center=first)
        ({'weight': tensor([1.])}, {'weight': tensor([2.5000])})
    """

    def __init__(self, factor: float, names: Sequence[str]) -> None:
        self.factor, self.names = factor, names
        self._velocity: dict[str, Tensor] = {}

    def model(self, aggregate: Mapping[str, Tensor], center: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return w_g + v with v = b v' + u and u = aggregate - w_g, in the range of the tensors' type.

        Args:
            aggregate: the state dict that the round's aggregation came to.
            center: the state dict w_g of the round before.
        """
        updates = {name: _finite(aggregate[name] - center[name]) for name in self.names}
        if self._velocity:
            updates = {name: _finite(update + self.factor * self._velocity[name]) for name, update in updates.items()}
        self._velocity = updates
        return {**aggregate, **{name: _finite(center[name] + update) for name, update in updates.items()}}


def _finite(tensor: Tensor) -> Tensor:
    """Return the tensor with infinities as the largest numbers: sums of huge finite numbers stay finite."""
    largest = torch.finfo(tensor.dtype).max
    return tensor.clamp(-largest, largest)
