"""Krum: the upload closest to its nearest neighbors becomes the global model.

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
    """The one upload with the smallest sum of squared distances to its K - f - 2 nearest neighbors.

    K is the number of uploads and f the number that is assumed malicious. All other uploads are left out of the
    aggregate, but only the f with the largest sums are flagged.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.krum import Krum
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.4, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = Krum(Krum.Settings(malicious=1)).judge(round)
        >>> [f"{score:.2f}" for score in verdict.scores]
        ['0.05', '0.02', '0.05', '0.13', '118.60']
        >>> verdict.weights, verdict.flagged
        ([0.0, 1.0, 0.0, 0.0, 0.0], [False, False, False, False, True])
    """

    Settings = KrumSettings

    settings: KrumSettings
    not_composed = "it keeps a single upload"

    @override
    def protects(self, clients: int) -> bool:
        """Return whether an upload has honest neighbors at all: of three clients two are honest, also with f = 0."""
        return clients >= 3 and self.settings.allows(clients)

    @override
    def judge(self, round: Round) -> Verdict:
        """Give the client with the smallest score all the weight, the first one at a tie.

        Raises:
            TooFewUploads: if there are fewer than 2f + 3 uploads and f is above 0.
        """
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
