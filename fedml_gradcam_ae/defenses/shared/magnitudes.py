"""The size that a coordinate of an update must have to be among its largest, without a sorted copy of all updates."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedml_gradcam_ae.contract.updates import Updates


def kth_largest(updates: Updates, count: int) -> Tensor:
    """Return the count-th largest absolute value of each update, (clients,), float64.

    One update at a time is in memory as a whole.

    Args:
        updates: the updates, of at least `count` coordinates.
        count: at least 1.

    Example:
        >>> center = {"weight": torch.zeros(3)}
        >>> uploads = [{"weight": torch.tensor(value)} for value in ([3.0, -5.0, 1.0], [0.0, 0.0, -2.0])]
        >>> kth_largest(Updates(uploads, center, ["weight"]), count=2)
        tensor([3., 0.], dtype=torch.float64)
    """
    values, place = np.empty(updates.size), updates.size - count
    found = []
    for position in range(len(updates)):
        start = 0
        for block in updates.only([position]).blocks(reuse_buffer=True):
            values[start : start + block.shape[1]] = block[0].abs().cpu().numpy()
            start += block.shape[1]
        values.partition(place)
        found.append(values[place])
    return torch.tensor(found, dtype=torch.float64, device=updates.center[updates.names[0]].device)
