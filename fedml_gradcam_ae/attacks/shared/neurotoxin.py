"""Neurotoxin: an attacker trains only weights that the honest clients hardly move.

Source: Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022, section 3: in each step of the
training, the gradient is projected on the coordinates outside of the top k % of the last global update. FedML's own
trainer has no place for such a step, but gradients can be changed on their way to it, by hooks on the parameters. They
are there while the attacker's batches are read, which is while it trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Neurotoxin:
    """The last global updates that the attackers know, and the projection of their gradients.

    The last global update is the change of the global model since the attackers trained last. In their first round
    nothing is projected, since they do not know it yet.

    Args:
        fraction: the share k of the coordinates that stay.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self._before: Tensor | None = None
        self._latest: Tensor | None = None

    def training(self, network: nn.Module) -> Projection:
        """Return the projection of one client's training.

        Args:
            network: the model that the client trains; it holds the global model when the training starts.
        """
        return Projection(self, network)

    def last_update(self, start: Tensor) -> Tensor | None:
        """Return the last global update, (d,); None in the first round.

        Args:
            start: (d,), the global model of this round. Several attackers of a round start from the same.
        """
        if self._latest is None or not torch.equal(start, self._latest):
            self._before, self._latest = self._latest, start
        return None if self._before is None else self._latest - self._before


class Projection:
    """The projection of one client's training; the first pass over its batches finds the coordinates.

    Args:
        neurotoxin: what the attackers know.
        network: the model that the client trains.
    """

    def __init__(self, neurotoxin: Neurotoxin, network: nn.Module) -> None:
        self.neurotoxin, self.network = neurotoxin, network
        self._kept: Sequence[Tensor] | None = None

    @contextmanager
    def during(self) -> Iterator[None]:
        """Return a context manager in which `backward` leaves projected gradients on the network's parameters."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        if self._kept is None:
            start = torch.cat([parameter.detach().reshape(-1).cpu() for parameter in trained])
            update = self.neurotoxin.last_update(start)
            kept = None if update is None else least_moved(update, self.neurotoxin.fraction)
            self._kept = () if kept is None else torch.split(kept, [parameter.numel() for parameter in trained])
        handles: list[RemovableHandle] = [
            parameter.register_hook(_projection(mask.view(parameter.shape).to(parameter.device)))  # type: ignore[no-untyped-call]
            for parameter, mask in zip(trained, self._kept, strict=False)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _projection(kept: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * kept


def least_moved(update: Tensor, fraction: float) -> Tensor:
    """Return where an update is outside of its largest coordinates by absolute value.

    Args:
        update: (d,).
        fraction: the share of the coordinates that count as the largest, rounded down.

    Returns:
        (d,), bool.

    Example:
        >>> least_moved(torch.tensor([0.1, -4.0, 3.0, 0.0]), fraction=0.5)
        tensor([ True, False, False,  True])
    """
    kept = torch.ones(len(update), dtype=torch.bool)
    kept[update.abs().topk(int(fraction * len(update) + 1e-9)).indices] = False
    return kept
