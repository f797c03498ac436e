"""Centered clipping: a mean of the updates, each first pulled to within a distance of last round's result.

Source: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021, equation (CC). The
paper sets its radius by hand; `tau: median` is ours.
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
from fedml_gradcam_ae.defenses.median import median


@register_defense("centered_clipping")
class CenteredClipping(Defense):
    """v <- v + mean_i (u_i - v) min(1, tau / ||u_i - v||), starting from last round's v; then w <- w_g + v.

    v is 0 in the first round. BatchNorm's statistics, to which no distance belongs, are the coordinate-wise median.
    """

    class Settings(DefenseSettings):
        """The radius and the number of steps."""

        tau: float | Literal["median"] = Field(
            default="median",
            description="how far from v an update may reach; `median`: as far as the median update does, in each step",
        )
        iterations: int = Field(default=1, ge=1, description="steps a round")

        @model_validator(mode="after")
        def _check_tau(self) -> CenteredClipping.Settings:
            if isinstance(self.tau, float) and self.tau <= 0:
                raise ValueError(f"tau must be above 0, or `median`, found {self.tau}")
            return self

    settings: Settings

    def __init__(self, settings: CenteredClipping.Settings) -> None:
        super().__init__(settings)
        self._carried: dict[str, Tensor] = {}

    @override
    def judge(self, round: Round) -> Verdict:
        """A model; nobody is left out as a whole. The score is the distance to v in the last step."""
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
        """v, which must outlive the process."""
        return {"carried": self._carried}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._carried = dict(state["carried"])


def clipping_coefficients(gram: Tensor, tau: float | None, iterations: int) -> tuple[Tensor, Tensor]:
    """The c with which v + sum_i c_i (u_i - v) is the result of so many clipping steps from v.

    Args:
        gram: (clients, clients), the inner products of the u_i - v, float64.
        tau: the radius; None: each step's median distance.
        iterations: how many steps.

    Returns:
        Two times (clients,): the coefficients, and the distances to the point before the last step.
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
