"""Nearest-neighbor mixing (NNM) in front of another rule.

Source: Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
algorithm 1.
ByzFL's is the same, with ties in no particular order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious, DefenseSettings, read_settings


@register_defense("nnm")
class NearestNeighborMixing(Defense):
    """u_i <- the mean of the K - f updates nearest to u_i, itself included; then the other rule.

    Mixing is linear, so neither the mixed updates nor their distances are ever computed from the parameters: the other
    rule reads them through `Round.updates`.
    """

    class Settings(AssumesMalicious):
        """The rule behind it, one of those that judge by the updates alone."""

        rule: Literal[
            "krum", "multi_krum", "trimmed_mean", "median", "geometric_median", "centered_clipping", "dnc"
        ] = Field(default="trimmed_mean", description="the rule that the mixed updates go to")
        rule_params: dict[str, Any] = Field(
            default_factory=dict, description="its parameters; `malicious` is taken over where it has that key"
        )

        @model_validator(mode="after")
        def _check_rule(self) -> NearestNeighborMixing.Settings:
            self.rule_settings()
            return self

        def rule_settings(self) -> DefenseSettings:
            """The other rule's settings, checked."""
            model = registry.defenses()[self.rule].Settings
            shared = {"malicious": self.malicious} if issubclass(model, AssumesMalicious) else {}
            settings: DefenseSettings = read_settings(
                model, {**shared, **self.rule_params}, "defense_params.rule_params", self.rule
            )
            return settings

        @override
        def check_clients(self, clients: int) -> None:
            """Enough for the mixing, and for the rule behind it."""
            super().check_clients(clients)
            self.rule_settings().check_clients(clients)

    settings: Settings

    def __init__(self, settings: NearestNeighborMixing.Settings) -> None:
        super().__init__(settings)
        self.rule: Defense = registry.defenses()[settings.rule](settings.rule_settings())

    @override
    def judge(self, round: Round) -> Verdict:
        """The other rule's verdict; a client whose mixture is left out still counts where others were mixed with it."""
        clients = len(round.uploads)
        malicious = self.settings.faced(clients, len(round.rejected))
        mixing = mixing_matrix(round.updates.squared_distances, malicious)
        verdict = self.rule.judge(round.over(round.updates.mixed(mixing)))
        if verdict.weights is not None:
            weights = (mixing.T.cpu() @ torch.tensor(verdict.weights, dtype=torch.float64)).tolist()
            out = None if verdict.excluded is None else [weight == 0 for weight in weights]
            verdict = replace(verdict, weights=weights, excluded=out)
        return verdict

    @override
    def state(self) -> dict[str, Any]:
        """The other rule's."""
        return self.rule.state()

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.rule.restore(state)


def mixing_matrix(squared_distances: Tensor, malicious: int) -> Tensor:
    """M with M_ij = 1 / (K - f) where j is one of the K - f nearest to i, i itself first; else 0.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal.
        malicious: f, below K.

    Returns:
        (clients, clients), float64, rows that sum to 1; with ties the first ones count as nearer.
    """
    kept = len(squared_distances) - malicious
    nearest = squared_distances.clone().fill_diagonal_(-1).sort(dim=1, stable=True).indices[:, :kept]
    return torch.zeros_like(squared_distances).scatter_(1, nearest, 1 / kept)
