"""Multi-Krum: the mean of the m uploads with the nearest neighbors.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
section 4. The mean is unweighted, as there: claimed sample counts are untrusted. FedML's and Flower's weigh by samples.
"""

from __future__ import annotations

from pydantic import Field
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.defenses.shared.krum_scores import KrumSettings, krum_scores


@register_defense("multi_krum")
class MultiKrum(Defense):
    """Average the m uploads with the smallest Krum scores."""

    class Settings(KrumSettings):
        """f, and m where it shall not be K - f."""

        kept: int | None = Field(default=None, ge=1, description="m, how many uploads are averaged; null: K - f")

        @override
        def check_clients(self, clients: int) -> None:
            """K > 2f + 2 and K >= m."""
            super().check_clients(clients)
            if self.kept is not None and self.kept > clients:
                raise ValueError(f"kept: there are {clients} clients a round, found {self.kept}")

        @override
        def needed(self, malicious: int) -> int:
            """With f above 0 also as many uploads as shall be kept."""
            return max(super().needed(malicious), self.kept or 1) if malicious else 1

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """The m kept share the weight; with ties the first ones are kept."""
        clients = len(round.uploads)
        malicious = self.settings.faced(clients, len(round.rejected))
        scores = krum_scores(round.updates.squared_distances, malicious)
        kept = min(clients, self.settings.kept or clients - malicious)
        chosen = set(scores.sort(stable=True).indices[:kept].tolist())
        out = [position not in chosen for position in range(clients)]
        return Verdict(
            flagged=out,
            excluded=out,
            weights=[0.0 if excluded else 1 / kept for excluded in out],
            scores=scores.tolist(),
        )
