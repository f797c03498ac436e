"""Threshold, flags and vote: from reconstruction errors to the clients left out (paper, sections 5.3 and 5.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId


def reconstruction_error(
    maps: Tensor, reconstructions: Tensor, kind: Literal["absolute", "squared"] = "absolute"
) -> Tensor:
    """Return R_l, the mean over positions of |L_l - L'_l| (14), or of its square as in the authors' code.

    Args:
        maps: (clients, images, height, width).
        reconstructions: the same shape.
        kind: whether to take the absolute value or the square.

    Returns:
        (clients,): with several images per client, the mean over all of them.
    """
    difference = (maps - reconstructions).flatten(1)
    return difference.abs().mean(1) if kind == "absolute" else difference.square().mean(1)


def error_threshold(errors: Tensor, alpha: float) -> float:
    """Return the threshold delta = mean(R) + alpha * std(R), the standard deviation with 1/(K + K') (15, 16).

    Equation (15) prints 1/R_l where the mean is meant. If errors have only two values and a share p of the clients are
    attackers, their errors can only exceed this threshold if p < 1 / (1 + alpha^2).

    Args:
        errors: (clients,), R.
        alpha: the number of standard deviations above the mean.
    """
    return float(errors.mean() + alpha * errors.std(correction=0))


def flag(errors: Sequence[float], threshold: float) -> list[bool]:
    """Return True for the clients with R_l > delta, which are those with O_l = 0 (17).

    Args:
        errors: R, one per client.
        threshold: delta.
    """
    return [error > threshold for error in errors]


def voted_out(
    flags_by_round: Mapping[int, Iterable[ClientId]], number: int, every: int, needed: int
) -> dict[ClientId, int]:
    """Return the clients flagged in at least `needed` of the last `every` rounds, this one included (18, 19).

    Equation (19) sums O (1 = benign) but compares the sum as if it counted flags. Here flags are counted, as in
    Algorithm 1.

    Args:
        flags_by_round: the flagged clients, by round number.
        number: this round, t.
        every: xi, the number of rounds that the vote counts.
        needed: epsilon, the number of flags that it needs.

    Returns:
        The number of flags, by client id, of each client that has at least `needed`.

    Example:
        >>> voted_out({1: ["a"], 2: ["a", "b"], 3: ["c"]}, number=3, every=3, needed=2)
        {'a': 2}
    """
    window = [set(flags_by_round.get(past, ())) for past in range(number - every + 1, number + 1)]
    counts = Counter(client for flagged in window for client in flagged)
    return {client: flags for client, flags in counts.items() if flags >= needed}
