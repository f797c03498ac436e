"""Multi-Krum: the mean of the m uploads closest to their nearest neighbors.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
section 4. The mean is unweighted, as in the paper, since claimed sample counts are untrusted. FedML and Flower weight
it by samples.
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
    """The unweighted mean of the m uploads with the smallest Krum scores.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.4, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = MultiKrum(MultiKrum.Settings(malicious=1)).judge(round)
        >>> [f"{score:.2f}" for score in verdict.scores]
        ['0.05', '0.02', '0.05', '0.13', '118.60']
        >>> verdict.weights
        [0.25, 0.25, 0.25, 0.25, 0.0]
    """

    class Settings(KrumSettings):
        """The assumed number of malicious clients f, and m if it is to differ from K - f."""

        kept: int | None = Field(
            default=None, ge=1, description="m, the number of uploads that are averaged; null: K - f"
        )

        @override
        def check_clients(self, clients: int) -> None:
            """Check that K > 2f + 2 and K >= m.

            Args:
                clients: K, the number of clients per round.

            Raises:
                ValueError: if one of the two does not hold.
            """
            super().check_clients(clients)
            if self.kept is not None and self.kept > clients:
                raise ValueError(f"kept: there are {clients} clients a round, found {self.kept}")

        @override
        def needed(self, malicious: int) -> int:
            """Return the number of uploads needed: 2f + 3 and at least m; 1 where f is 0."""
            return max(super().needed(malicious), self.kept or 1) if malicious else 1

    settings: Settings

    @override
    def protects(self, clients: int) -> bool:
        """Return whether there are honest neighbors, as in Krum, and m is below K."""
        settings = self.settings
        kept = settings.kept or clients - settings.assumed(clients)
        return clients >= 3 and settings.allows(clients) and kept < clients

    @override
    def judge(self, round: Round) -> Verdict:
        """Give the m uploads with the smallest scores equal weights; at a tie the first ones are kept.

        Raises:
            TooFewUploads: if f is above 0 and there are fewer than 2f + 3 uploads or fewer than m.
        """
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
