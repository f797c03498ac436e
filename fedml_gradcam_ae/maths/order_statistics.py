"""Order statistics over clients, for whole blocks of coordinates at a time.

A sorting network (Batcher 1968, "Sorting networks and their applications") orders K rows by a fixed list of
compare-exchange steps. Each step is one `minimum` and one `maximum` over all columns. To sort column by column is many
times slower on a CPU, since K is small and there are millions of columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

_MOST_ROWS = 256  # With more rows than this, the network's steps cost more than sorting does.


def median(values: Tensor, dim: int = 0) -> Tensor:
    """Return the median along one dimension, the mean of the two middle values where their number is even.

    Args:
        values: any shape, at least one value along `dim`, none of them NaN.
        dim: the dimension, which the result lacks.

    Example:
        >>> median(torch.tensor([[1.0, 90.0], [2.0, 7.0], [300.0, -8.0], [4.0, 8.0]]))
        tensor([3.0000, 7.5000])
    """
    rows = values.movedim(dim, 0)
    cut = (len(rows) - 1) // 2
    if len(rows) > _MOST_ROWS:
        return rows.sort(dim=0).values[cut : len(rows) - cut].mean(dim=0)
    return middle_rows(rows, cut).mean(dim=0)


def middle_rows(values: Tensor, cut: int) -> Tensor:
    """Return each column without its `cut` smallest and `cut` largest values, in no particular order.

    Args:
        values: (clients, ...).
        cut: at least 0, and less than half of the number of clients.

    Returns:
        (clients - 2 * cut, ...). If one row is left, it is the median of each column; if two are, their mean is.

    Example:
        >>> middle_rows(torch.tensor([[1.0, 90.0], [2.0, 7.0], [300.0, -8.0]]), cut=1)
        tensor([[2., 7.]])
    """
    if cut == 0:
        return values
    rows = _exchanged(values, _selection_network(len(values), cut))
    return torch.stack(rows[cut : len(rows) - cut])


def mean_nearest_to_median(values: Tensor, kept: int) -> Tensor:
    """Return, for each column, the mean of the `kept` values that are nearest to the column's median.

    In order, these are consecutive values. So the value at one of the two ends is dropped, the one further from the
    median, until `kept` are left; at a tie the larger value is dropped.

    Args:
        values: (clients, columns).
        kept: at least 1 and at most the number of clients.

    Returns:
        (columns,). For an even number of clients the median is the mean of the two middle values.

    Example:
        >>> mean_nearest_to_median(torch.tensor([[1.0, 90.0], [2.0, 7.0], [300.0, -8.0]]), kept=2)
        tensor([ 1.5000, -0.5000])
    """
    clients = len(values)
    ordered = torch.stack(_exchanged(values, _sorting_network(clients)))
    median = ordered[(clients - 1) // 2] / 2 + ordered[clients // 2] / 2
    first = torch.zeros(1, values.shape[1], dtype=torch.int64, device=values.device)
    for last in range(clients - 1, kept - 1, -1):  # of the window first, ..., first + last: one value too many
        below = median - ordered.gather(0, first)[0]
        above = ordered.gather(0, first + last)[0] - median
        first += (below > above).long()
    return sum(ordered.gather(0, first + step)[0] / kept for step in range(kept))  # type: ignore[return-value]


def _exchanged(values: Tensor, steps: Iterable[tuple[int, int]]) -> list[Tensor]:
    """Return copies of the rows after compare-exchange steps, each of which puts two rows in order."""
    rows = list(values.clone())
    spare = torch.empty_like(rows[0])
    for low, high in steps:
        torch.minimum(rows[low], rows[high], out=spare)
        torch.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return rows


@lru_cache
def _selection_network(clients: int, cut: int) -> list[tuple[int, int]]:
    """Return Batcher's network without the steps that only order values within the low, middle or high rows."""
    zone = [0 if row < cut else 2 if row >= clients - cut else 1 for row in range(clients)]
    steps: list[tuple[int, int]] = []
    touched: set[int] = set()
    for low, high in reversed(_sorting_network(clients)):
        if zone[low] != zone[high] or touched & {low, high}:
            steps.append((low, high))
            touched |= {low, high}
    return steps[::-1]


@lru_cache
def _sorting_network(clients: int) -> list[tuple[int, int]]:
    """Return the steps of Batcher's odd-even merge sort, for any number of rows: pairs of rows to put in order."""
    steps = []
    size = 1
    while size < clients:
        gap = size
        while gap >= 1:
            for start in range(gap % size, clients - gap, 2 * gap):
                for low in range(start, min(start + gap, clients - gap)):
                    if low // (2 * size) == (low + gap) // (2 * size):
                        steps.append((low, low + gap))
            gap //= 2
        size *= 2
    return steps
