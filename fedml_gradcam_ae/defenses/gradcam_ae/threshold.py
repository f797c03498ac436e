"""From reconstruction errors to the clients that are left out (paper, sections 5.3 and 5.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from fedml_gradcam_ae.contract.upload import ClientId


def reconstruction_error(
    maps: Tensor, reconstructions: Tensor, kind: Literal["absolute", "squared"] = "absolute"
) -> Tensor:
    """R_l: the mean over positions of |L_l - L'_l| (14), or of its square as in the authors' code.

    Args:
        maps: (clients, images, height, width).
        reconstructions: the same shape.

    Returns:
        (clients,): with several images per client, the mean over all of them.
    """
    difference = (maps - reconstructions).flatten(1)
    return difference.abs().mean(1) if kind == "absolute" else difference.square().mean(1)


def error_threshold(errors: Tensor, alpha: float) -> float:
    """delta = mean(R) + alpha * std(R), the standard deviation with 1/(K + K') (15, 16).

    Equation (15) prints 1/R_l where the mean is meant. With two-valued errors and a share p of attackers
    they can only pass this threshold if p < 1 / (1 + alpha^2).
    """
    return float(errors.mean() + alpha * errors.std(correction=0))


def flag(errors: Sequence[float], threshold: float) -> list[bool]:
    """True for the clients with R_l > delta, the ones with O_l = 0 (17)."""
    return [error > threshold for error in errors]


def voted_out(
    flags_by_round: Mapping[int, Iterable[ClientId]], number: int, every: int, needed: int
) -> dict[ClientId, int]:
    """Clients flagged in at least `needed` of the last `every` rounds, this one included (18, 19).

    Equation (19) sums O (1 = benign) but compares as if it counted flags; Algorithm 1 decides: flags count.

    Args:
        flags_by_round: who was flagged, by round number.
        number: this round, t.
        every: xi.
        needed: epsilon.

    Returns:
        The number of flags of each client that has enough of them.
    """
    window = [set(flags_by_round.get(past, ())) for past in range(number - every + 1, number + 1)]
    counts = Counter(client for flagged in window for client in flagged)
    return {client: flags for client, flags in counts.items() if flags >= needed}
