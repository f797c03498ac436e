"""Part of a data set with every class in its share."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(labels: Tensor, count: int, seed: int = 0) -> list[int]:
    """The positions of `count` samples, ascending: as many of each class as its share, rounded, drawn by the seed.

    What rounding leaves over goes to the classes with the largest remainders.

    Args:
        labels: (samples,), int64.
        count: at most the number of samples.
        seed: draws which samples of a class.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(labels)
    exact = sizes.double() * count / len(labels)
    quotas = exact.floor().long()
    left = count - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:left]] += 1
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return sorted(torch.cat(chosen).tolist())
