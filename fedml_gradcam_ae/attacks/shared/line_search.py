"""The line search for the factor of an attack that does most harm to a rule that the attackers know.

Source: the optimal attacks of ByzFL, after Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
Heterogeneity", AISTATS 2023, and Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import Defense, overrides
from fedml_gradcam_ae.contract.round import Round, TooFewUploads, sample_weights
from fedml_gradcam_ae.contract.screening import upload_problem
from fedml_gradcam_ae.contract.settings import AssumesMalicious, read_settings, unknown
from fedml_gradcam_ae.contract.updates import flatten, weighted_mean
from fedml_gradcam_ae.defenses.shared import composed

EVALUATIONS = 20
_FIRST_STEP, _EXPANSION, _CONTRACTION = 10.0, 2.0, 0.8


class OptimizedSettings(ColludingSettings):
    """The settings of attacks whose factor can be searched for in every round, against a rule that is known."""

    factor: ClassVar[str] = ""  # the setting of a subclass that is a number or `optimal`
    against: str | None = Field(
        default=None,
        description="with the factor `optimal`: the `defense_type` whose aggregate is to be moved most; null: the "
        "average by samples",
    )
    against_params: dict[str, Any] = Field(
        default={},
        description="that rule's `defense_params`; where `malicious` is not among them, the rule assumes as many "
        "malicious clients as there are attackers",
    )

    @model_validator(mode="after")
    def _check_rule(self) -> OptimizedSettings:
        if self.against is None:
            if self.against_params:
                raise ValueError(f"against_params belong to a rule, found {self.against_params} and against null")
            return self
        known = registry.defenses()
        if self.against not in known:
            raise ValueError(unknown(f"defense_type {self.against!r}", self.against, known).rstrip("."))
        if overrides(known[self.against], "start_for"):
            raise ValueError(f"{self.against} keeps several models, so that no single one can be moved")
        cls = known[self.against]
        composed.check(
            cls, read_settings(cls.Settings, self.against_params, "attack_params.against_params", self.against)
        )
        if self.factor and (value := getattr(self, self.factor)) != "optimal":
            raise ValueError(
                f"against is used with {self.factor}: optimal only, found {self.factor}: {value} and against: "
                f"{self.against}"
            )
        return self

    def rule(self, malicious: int) -> Defense | None:
        """Return a new instance of the rule; None without one.

        Args:
            malicious: the assumed number of malicious clients, unless `against_params` sets it.
        """
        if self.against is None:
            return None
        cls = registry.defenses()[self.against]
        assumed = {"malicious": malicious} if issubclass(cls.Settings, AssumesMalicious) else {}
        return composed.build(cls, cls.Settings(**{**assumed, **self.against_params}))


def largest_by_line_search(
    objective: Callable[[float], float], step: float = _FIRST_STEP, evaluations: int = EVALUATIONS
) -> float:
    """Return the factor of at least 0 with the largest value found, by steps that double, then shrink by 0.8.

    From the best factor so far, a step is tried. While the value rises, the step doubles; from the first time on that
    it does not, the step shrinks after every trial.

    Args:
        objective: the value of a factor; NaN counts as no rise.
        step: the first step.
        evaluations: the number of factors that are tried, 0 included.

    Example:
        >>> largest_by_line_search(lambda factor: -abs(factor - 25))  # 0, 10, 30; no step goes back
        30.0
    """
    best, value = 0.0, objective(0.0)
    expanding = True
    for _ in range(evaluations - 1):
        found = objective(best + step)
        if found > value:
            best, value = best + step, found
            step *= _EXPANSION if expanding else _CONTRACTION
        else:
            expanding = False
            step *= _CONTRACTION
    return best


def most_harmful(colluders: Colluders, settings: OptimizedSettings, update: Callable[[float], Tensor]) -> float:
    """Return the factor with which the attackers move the aggregate furthest from the mean of the overheard updates.

    The rule judges the overheard uploads and the attackers' copies, 20 times a round, without its memory of earlier
    rounds. The distance is over the trainable parameters. A rule that has too few uploads counts as not moved.

    Args:
        colluders: the attackers' knowledge.
        settings: the rule.
        update: from a factor to the attackers' update, (d,).
    """
    round, attackers = colluders.round, list(colluders.attackers)
    known = replace(round.only([*colluders.heard, *attackers]), local_data={})
    benign, honest = known.uploads[: len(colluders.heard)], colluders.mean

    def distance(factor: float) -> float:
        copy = colluders.uploads([update(factor)] * len(attackers))[0]
        if upload_problem(copy, round.global_model) is not None:
            return 0.0  # the server would leave it out
        staged = replace(known, uploads=[*benign, *(copy for _ in attackers)])
        model = aggregate(settings.rule(len(attackers)), staged)
        if model is None:
            return 0.0
        moved = flatten(model, round.parameters).double() - flatten(round.global_model, round.parameters).double()
        return float((moved - honest).norm())

    return largest_by_line_search(distance)


def aggregate(defense: Defense | None, round: Round) -> dict[str, Tensor] | None:
    """Return the new global model of a round, as the server computes it.

    Args:
        defense: the rule; None: the average by samples.
        round: the round.

    Returns:
        The state dict; None if the rule has too few uploads, or keeps none.
    """
    if defense is None:
        weights = sample_weights(round.samples, [False] * len(round.uploads))
        return weighted_mean(round.uploads, weights) if math.fsum(weights) > 0 else None
    try:
        verdict = defense.judge(round)
    except TooFewUploads:
        return None
    if verdict.model is not None:
        return dict(verdict.model)
    assert verdict.weights is not None  # Verdict has weights or a model
    return weighted_mean(round.bounded.uploads, verdict.weights) if math.fsum(verdict.weights) > 0 else None
