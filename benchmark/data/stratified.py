"""Stratified subsets of a data set."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified(labels: Tensor, count: int, seed: int = 0) -> list[int]:
    """Draw a stratified subset: each class has the same share of it as of the whole set.

    The number of samples of each class is rounded down. The samples that are still missing are taken from the classes
    with the largest remainders, one each.

    Args:
        labels: (samples,), int64.
        count: the size of the subset, at most the number of samples.
        seed: draws the samples within each class.

    Returns:
        The positions of the chosen samples, ascending.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> labels[stratified(labels, 3)].tolist()
        [0, 0, 1]
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
