"""Rounds whose updates are chosen numbers, and updates as numpy: the arithmetic of the attacks' oracles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedml_gradcam_ae import Round


class Flat(nn.Module):
    """Nothing but d weights, all of them `start`."""

    def __init__(self, size: int, start: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), start, dtype=torch.float64))


def flat_round(make_round: Callable[..., Round], updates: np.ndarray, start: float = 0.0, **changes: Any) -> Round:
    """A round whose i-th upload is start + updates[i], in float64."""
    uploads = [{"weight": torch.tensor(start + row)} for row in updates]
    network = Flat(updates.shape[1], start)
    return make_round(clients=len(updates), network=network, uploads=uploads, **changes)


def update(round: Round, upload: Mapping[str, Tensor]) -> np.ndarray:
    """(d,), float64: what an upload adds to the global model's parameters."""
    return np.concatenate(
        [
            (upload[name].double() - round.global_model[name].double()).contiguous().numpy().ravel()
            for name, _ in round.network.named_parameters()
        ]
    )


def updates(round: Round, positions: Sequence[int] | None = None) -> np.ndarray:
    """(clients, d), float64."""
    chosen = range(len(round.uploads)) if positions is None else positions
    return np.stack([update(round, round.uploads[i]) for i in chosen])
