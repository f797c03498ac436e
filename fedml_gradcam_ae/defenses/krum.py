"""Krum: the upload with the nearest neighbors becomes the global model.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
"""

from __future__ import annotations

from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.defenses.shared.krum_scores import KrumSettings, krum_scores


@register_defense("krum")
class Krum(Defense):
    """Follow the one upload with the smallest sum of squared distances to its K - f - 2 nearest others.

    Every other upload is left out of the aggregate, but only the f with the largest sums are flagged.
    """

    Settings = KrumSettings

    settings: KrumSettings

    @override
    def judge(self, round: Round) -> Verdict:
        """One client has all the weight; with ties the first of them."""
        clients = len(round.uploads)
        malicious = self.settings.faced(clients, len(round.rejected))
        scores = krum_scores(round.updates.squared_distances, malicious)
        best = int(scores.argmin())
        worst = set(scores.sort(descending=True, stable=True).indices[:malicious].tolist()) - {best}
        out = [position != best for position in range(clients)]
        return Verdict(
            flagged=[position in worst for position in range(clients)],
            excluded=out,
            weights=[0.0 if excluded else 1.0 for excluded in out],
            scores=scores.tolist(),
        )
