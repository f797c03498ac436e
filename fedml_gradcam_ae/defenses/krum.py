"""Krum: the upload with the nearest neighbors becomes the global model.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
"""

from __future__ import annotations

from time import perf_counter

from fedml_gradcam_ae.federation import Round, Verdict
from fedml_gradcam_ae.krum import check_tolerated, krum_scores, tolerated
from fedml_gradcam_ae.registry import register_defense
from fedml_gradcam_ae.settings import AssumesMalicious


@register_defense("krum")
class Krum:
    """Follow the one upload with the smallest sum of squared distances to its K - f - 2 nearest others.

    Every other upload is left out of the aggregate, but only the f with the largest sums are flagged.
    """

    class Settings(AssumesMalicious):
        """f alone."""

        def check_clients(self, clients: int) -> None:
            """K > 2f + 2."""
            check_tolerated(self.assumed(clients), clients)

    def __init__(self, settings: Krum.Settings) -> None:
        self.settings = settings

    def judge(self, round: Round) -> Verdict:
        """One client has all the weight; with ties the first of them."""
        start = perf_counter()
        clients = len(round.uploads)
        malicious = min(self.settings.assumed(clients, len(round.rejected)), tolerated(clients))
        scores = krum_scores(round.updates.squared_distances, malicious)
        best = int(scores.argmin())
        worst = set(scores.sort(descending=True, stable=True).indices[:malicious].tolist()) - {best}
        out = [position != best for position in range(clients)]
        return Verdict(
            flagged=[position in worst for position in range(clients)],
            excluded=out,
            weights=[0.0 if excluded else 1.0 for excluded in out],
            scores=scores.tolist(),
            seconds={"total": perf_counter() - start},
        )
