"""Projected gradient ascent that finds its own step length, for objectives whose maximum is inside the ball.

Source: Auto-PGD, Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020. There the steps are signs of gradients in a box; here they are gradients of length
one in a Euclidean ball. The step is halved a little sooner: whenever the best value has not risen between checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_MOMENTUM = 0.25
_ENOUGH_RISES = 0.75
# Shares of all steps: the first interval between checkpoints, what each is shorter than the last, and the shortest.
_FIRST, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06


def auto_ascent(
    objective: Callable[[Tensor], Tensor], center: Tensor, radius: float, changeable: int, steps: int
) -> Tensor:
    """Climb from the center of a ball to where the objective is largest, staying in the ball.

    Steps have the length of the radius at first. At a checkpoint, if the climb has stalled (too few steps led upward,
    or none to a new best), it goes on from the best point with steps half as long.

    Args:
        objective: a differentiable function of (parameters,).
        center: (parameters,).
        radius: of the ball, Euclidean.
        changeable: how many parameters may differ from the center: those with the steepest slope there.
        steps: how many gradients are taken, one more for the last point.

    Returns:
        The best point that was visited, the center included: its value is never below the center's.
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
    """(parameters,): 1 where the gradient is among the `changeable` largest in size, else 0."""
    if changeable >= len(gradient):
        return torch.ones_like(gradient)
    mask = torch.zeros_like(gradient)
    mask[gradient.abs().topk(changeable).indices] = 1
    return mask


def project(vector: Tensor, radius: float) -> Tensor:
    """The nearest point of the ball of this radius around zero (9b)."""
    length = float(vector.double().norm())
    return vector if length <= radius else vector * (radius / length)


def _is_direction(gradient: Tensor) -> bool:
    length = float(gradient.norm())
    return math.isfinite(length) and length > 0
