"""Nearest-neighbor mixing (NNM) in front of another rule.

Source: Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
algorithm 1. ByzFL's NNM is the same, with ties in no particular order.
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
    """Another rule on mixed updates: each update u_i becomes the mean of the K - f updates nearest to it, u_i included.

    Mixing is linear, so neither the mixed updates nor their distances are ever computed from the parameters: the other
    rule reads them through `Round.updates`.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.nnm import NearestNeighborMixing
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.3, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> rule = NearestNeighborMixing(NearestNeighborMixing.Settings(malicious=1, rule="median"))
        >>> rule.judge(round).model  # mixed, the first four updates are all 1.15
        {'weight': tensor([[1.1500]])}
    """

    class Settings(AssumesMalicious):
        """The rule that the mixed updates go to, one of those that judge by the updates alone, and f."""

        rule: Literal[
            "krum", "multi_krum", "trimmed_mean", "median", "geometric_median", "centered_clipping", "dnc"
        ] = Field(default="trimmed_mean", description="rule that aggregates the mixed updates")
        rule_params: dict[str, Any] = Field(
            default_factory=dict, description="settings of that rule; `malicious` is passed on if it has that key"
        )

        @model_validator(mode="after")
        def _check_rule(self) -> NearestNeighborMixing.Settings:
            self.rule_settings()
            return self

        def rule_settings(self) -> DefenseSettings:
            """Return the other rule's settings, checked.

            Raises:
                SettingsError: if they are wrong.
            """
            model = registry.defenses()[self.rule].Settings
            shared = {"malicious": self.malicious} if issubclass(model, AssumesMalicious) else {}
            settings: DefenseSettings = read_settings(
                model, {**shared, **self.rule_params}, "defense_params.rule_params", self.rule
            )
            return settings

        @override
        def check_clients(self, clients: int) -> None:
            """Check that there are enough clients for the mixing and for the other rule.

            Raises:
                ValueError: if there are too few.
            """
            super().check_clients(clients)
            self.rule_settings().check_clients(clients)

    settings: Settings

    def __init__(self, settings: NearestNeighborMixing.Settings | None = None) -> None:
        super().__init__(settings)
        self.rule: Defense = registry.defenses()[self.settings.rule](self.settings.rule_settings())

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the other rule's verdict on the mixed updates.

        Its weights are carried back to the uploads: a client whose own mixed update is left out still counts in the
        mixed updates of others.

        Raises:
            TooFewUploads: if there are too few uploads for the mixing or for the other rule.
        """
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
        """Return the other rule's state."""
        return self.rule.state()

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.rule.restore(state)


def mixing_matrix(squared_distances: Tensor, malicious: int) -> Tensor:
    """Return M with M_ij = 1 / (K - f) if j is one of the K - f clients nearest to i, i itself included, and else 0.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal, float64.
        malicious: f, below K.

    Returns:
        (clients, clients), float64, rows that sum to 1; at a tie the first clients count as nearer.

    Example:
        >>> positions = torch.tensor([1.0, 2.0, 9.0])
        >>> mixing_matrix((positions - positions[:, None]).square(), malicious=1)
        tensor([[0.5000, 0.5000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    kept = len(squared_distances) - malicious
    nearest = squared_distances.clone().fill_diagonal_(-1).sort(dim=1, stable=True).indices[:, :kept]
    return torch.zeros_like(squared_distances).scatter_(1, nearest, 1 / kept)
