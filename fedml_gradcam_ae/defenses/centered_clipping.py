"""Centered clipping: the mean of the updates, each clipped to a radius around the last round's aggregate.

Source: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021, equation (CC). The
paper sets its radius by hand; `tau: median` is this project's own.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.geometric_median import coordinates, distances_to_mean
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("centered_clipping")
class CenteredClipping(Defense):
    """The step v <- v + mean_i (u_i - v) min(1, tau / ||u_i - v||) from the last round's v; the model is w_g + v.

    v is 0 in the first round. BatchNorm's running statistics, which no distance includes, are aggregated by the
    coordinate-wise median.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.centered_clipping import CenteredClipping
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.2, 9.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = CenteredClipping(CenteredClipping.Settings(tau=2.0)).judge(round)
        >>> verdict.model  # the mean of 1.0, 1.2 and 2.0
        {'weight': tensor([[1.4000]])}
    """

    class Settings(DefenseSettings):
        """The clipping radius tau and the number of steps per round."""

        tau: float | Literal["median"] = Field(
            default="median",
            description="clipping radius around v; `median`: the median distance of the updates from v, in each step",
        )
        iterations: int = Field(default=1, ge=1, description="number of clipping steps in a round")

        @model_validator(mode="after")
        def _check_tau(self) -> CenteredClipping.Settings:
            if isinstance(self.tau, float) and self.tau <= 0:
                raise ValueError(f"tau must be above 0, or `median`, found {self.tau}")
            return self

    settings: Settings
    not_composed = "it leaves out no client"

    def __init__(self, settings: CenteredClipping.Settings | None = None) -> None:
        super().__init__(settings)
        self._carried: dict[str, Tensor] = {}

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the clipped mean; no client is left out as a whole.

        The score is the distance to v in the last step.
        """
        model = dict(round.global_model)
        for name, carried in self._carried.items():
            model[name] = model[name] + carried.to(model[name])
        updates = round.updates.recentered(model) if self._carried else round.updates
        tau = None if self.settings.tau == "median" else float(self.settings.tau)
        coefficients, distances = clipping_coefficients(updates.gram.cpu(), tau, self.settings.iterations)
        kept = round.bounded
        aggregate = kept.updates.recentered(model).combine(coefficients.to(updates.gram.device))
        others = set(round.global_model) - set(round.parameters) - set(round.tied)
        statistics = {name: tensor for name, tensor in round.global_model.items() if name in others}
        aggregate |= Updates(kept.uploads, statistics, []).columnwise(median)
        self._carried = {name: aggregate[name] - round.global_model[name] for name in round.parameters}
        return Verdict(model=aggregate, scores=distances.tolist())

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: v."""
        return {"carried": self._carried}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._carried = dict(state["carried"])


def clipping_coefficients(gram: Tensor, tau: float | None, iterations: int) -> tuple[Tensor, Tensor]:
    """Return the coefficients c for which v + sum_i c_i (u_i - v) is the result of the clipping steps from v.

    Args:
        gram: (clients, clients), the inner products of the u_i - v, float64.
        tau: the radius; None: each step's median distance.
        iterations: the number of steps.

    Returns:
        The coefficients, (clients,), and the distances to the point before the last step, (clients,).

    Example:
        >>> updates = torch.tensor([1.0, 1.0, 8.0], dtype=torch.float64)
        >>> coefficients, distances = clipping_coefficients(torch.outer(updates, updates), tau=2.0, iterations=1)
        >>> [round(coefficient, 3) for coefficient in coefficients.tolist()]
        [0.333, 0.333, 0.083]
    """
    points = coordinates(gram)
    coefficients = torch.zeros(len(gram), dtype=torch.float64)
    distances = coefficients
    for _ in range(iterations):
        distances = distances_to_mean(points, coefficients)
        radius = distances.quantile(0.5) if tau is None else torch.tensor(tau, dtype=torch.float64)
        factors = torch.where(distances > radius, radius / distances.clamp(min=1e-300), 1.0) / len(gram)
        coefficients = coefficients * (1 - factors.sum()) + factors
    return coefficients, distances
