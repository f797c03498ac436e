"""The largest shift of the benign mean under bounds on distances, for Min-Max and Min-Sum.

With the update mean + gamma p and the benign deviations R_i = u_i - mean,

    ||mean + gamma p - u_i||^2 = ||R_i||^2 - 2 gamma <R_i, p> + gamma^2 ||p||^2,

so each bound on distances is a quadratic inequality in gamma that needs only inner products. The paper searches for
the largest gamma instead, by halving steps with a tolerance.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings

Direction = Literal["std", "sign", "unit"]


class DeviationSettings(ColludingSettings):
    """The settings of Min-Max and Min-Sum: the choice among the paper's three perturbations p."""

    direction: Direction = Field(
        default="std",
        description="p: `std`, minus the standard deviation; `sign`, minus the mean's sign; `unit`, minus the mean, "
        "scaled to length 1",
    )


def perturbation(colluders: Colluders, direction: Direction) -> Tensor:
    """Return the perturbation p, (d,), float64.

    Args:
        colluders: the attackers' knowledge.
        direction: `std`, minus the standard deviation; `sign`, minus the sign of the mean; `unit`, minus the mean,
            scaled to length 1 (0 where the mean is 0).
    """
    if direction == "std":
        return -colluders.std
    if direction == "sign":
        return -colluders.mean.sign()
    length = float(colluders.mean.norm())
    return -colluders.mean / length if length > 0 else torch.zeros_like(colluders.mean)


def largest_within(squares: Tensor, slopes: Tensor, square: float, bounds: Tensor) -> float:
    """Return the largest gamma with ||R_i||^2 - 2 gamma <R_i, p> + gamma^2 ||p||^2 <= b_i for all i.

    Args:
        squares: (clients,), ||R_i||^2.
        slopes: (clients,), <R_i, p>.
        square: ||p||^2; where it is 0, gamma has no effect and is 0.
        bounds: (clients,), b_i >= ||R_i||^2, so that gamma = 0 always meets the bounds.

    Example:
        >>> largest_within(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0]), 1.0, torch.tensor([5.0, 10.0]))
        2.0
    """
    if not square > 0:
        return 0.0
    slack = (bounds - squares).clamp(min=0)
    roots = (slopes + (slopes.square() + square * slack).sqrt()) / square
    return max(0.0, float(roots.min()))
