"""Projected gradient ascent with an adaptive step length, for objectives whose maximum lies inside the ball.

Source: Auto-PGD, Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020. Auto-PGD takes signs of gradients as its steps, in a box; here the steps are
gradients of length one, in a Euclidean ball. The step is halved a little sooner: whenever the best value has not risen
between two checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_MOMENTUM = 0.25  # weight of the previous step's direction in the next one
_ENOUGH_RISES = 0.75  # the climb has stalled if fewer than this share of the steps since the checkpoint led upward
# Intervals between checkpoints, as shares of all steps: the first one, by how much each is shorter than the one before
# it, and the shortest.
_FIRST, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06


def auto_ascent(
    objective: Callable[[Tensor], Tensor], center: Tensor, radius: float, changeable: int, steps: int
) -> Tensor:
    """Return the best point that gradient ascent from the center of a ball visits, staying in the ball.
    At first the steps are as long as the radius. At a checkpoint, if the climb has stalled (too few steps led upward,
    or none to a new best value), it continues from the best point with steps half as long.

    Args:
        objective: a differentiable function of (parameters,) with one number as its result.
        center: (parameters,), the center of the ball.
        radius: the Euclidean radius of the ball.
        changeable: how many parameters may differ from the center: those with the largest absolute gradients at the
            center.
        steps: the number of steps. One gradient more is computed, at the last point.

    Returns:
        The best visited point, (parameters,). Its value is never below that of the center, which counts as visited.

    Example:
        >>> target = torch.tensor([0.3, 0.0])
        >>> def closeness(point):
        ...     return -(point - target).square().sum()
        >>> best = auto_ascent(closeness, torch.zeros(2), radius=1.0, changeable=2, steps=50)
        >>> bool((best - target).abs().max() < 0.01)
        True
    """
    best, best_value, last, at_checkpoint = center, -math.inf, math.inf, -math.inf
    moved = previous = reached = torch.zeros_like(center)
    slope: Tensor | None = None
    mask: Tensor | None = None
    stride, interval, taken, rises = radius, max(1, round(_FIRST * steps)), 0, 0
    for step in range(steps + 1):
        point = (center + moved).requires_grad_()
        with torch.enable_grad():
            value = objective(point)
            (gradient,) = torch.autograd.grad(value, point)
        mask = steepest(gradient, changeable) if mask is None else mask
        gradient = gradient * mask
        rises, last = rises + (value.item() > last), value.item()
        if last > best_value:
            best, best_value, reached, slope = point.detach(), last, moved, gradient
        if step == steps or slope is None:
            break
        taken += 1
        stalled = taken >= interval and (rises < _ENOUGH_RISES * taken or best_value == at_checkpoint)
        if stalled or not _is_direction(gradient):
            moved = previous = reached
            gradient, stride = slope, stride / 2
        if taken >= interval:
            at_checkpoint, taken, rises = best_value, 0, 0
            interval = max(1, round(max(interval - _SHORTER * steps, _SHORTEST * steps)))
        if not _is_direction(gradient):
            break
        ahead = project(moved + gradient * (stride / float(gradient.norm())), radius)
        smooth = (1 - _MOMENTUM) * (ahead - moved) + _MOMENTUM * (moved - previous)
        previous, moved = moved, project(moved + smooth, radius)
    return best


def steepest(gradient: Tensor, changeable: int) -> Tensor:
    """Return a mask, (parameters,): 1 for the `changeable` largest absolute values of the gradient, else 0.

    Args:
        gradient: (parameters,).
        changeable: how many parameters to mark.

    Example:
        >>> steepest(torch.tensor([1.0, -3.0, 2.0]), changeable=2)
        tensor([0., 1., 1.])
    """
    if changeable >= len(gradient):
        return torch.ones_like(gradient)
    mask = torch.zeros_like(gradient)
    mask[gradient.abs().topk(changeable).indices] = 1
    return mask


def project(vector: Tensor, radius: float) -> Tensor:
    """Return the nearest point of the ball around zero (9b).

    Args:
        vector: (parameters,).
        radius: the Euclidean radius of the ball.

    Example:
        >>> project(torch.tensor([3.0, 4.0]), radius=10.0), project(torch.tensor([3.0, 4.0]), radius=2.5)
        (tensor([3., 4.]), tensor([1.5000, 2.0000]))
    """
    length = float(vector.double().norm())
    return vector if length <= radius else vector * (radius / length)


def _is_direction(gradient: Tensor) -> bool:
    length = float(gradient.norm())
    return math.isfinite(length) and length > 0
