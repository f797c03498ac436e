"""Bulyan: per coordinate, the mean of the values nearest to the median, among uploads chosen by repeated Krum.

Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
arXiv 1802.07927, section 4. FLPoison averages the values of all chosen uploads, and FedML one value fewer than the
paper.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import AssumesMalicious, Malicious
from fedml_gradcam_ae.defenses.shared.krum_scores import krum_scores
from fedml_gradcam_ae.maths.order_statistics import mean_nearest_to_median


@register_defense("bulyan")
class Bulyan(Defense):
    """The mean, per coordinate, of the theta - 2f values nearest to the median of theta = K - 2f uploads.

    Krum chooses an upload, which is set aside, and again among the rest, until there are theta. All others are left
    out; of these, the f with the largest Krum scores are flagged.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.bulyan import Bulyan
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5, 6, 7],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 1.2, 1.4, 1.3, 0.8, 9.0)],
        ...     samples=[10.0] * 7,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = Bulyan(Bulyan.Settings(malicious=1)).judge(round)
        >>> verdict.excluded, verdict.flagged.index(True)
        ([False, False, False, False, False, True, True], 6)
        >>> verdict.model  # of 1.0, 1.1, 1.2, 1.3 and 1.4, the mean of the three nearest to 1.2
        {'weight': tensor([[1.2000]])}
    """

    class Settings(AssumesMalicious):
        """The assumed number of malicious clients f; the rule needs more than four times as many clients."""

        malicious: Malicious = Field(
            default=0.1, description="f, how many clients of a round are assumed malicious: a number, or a share (0.1)"
        )

        @override
        def needed(self, malicious: int) -> int:
            """Return the number of uploads needed: 4f + 3, or 1 where f is 0."""
            return 4 * malicious + 3 if malicious else 1

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Choose uploads by repeated Krum and average the values near to their median.

        The score is Krum's, among all uploads.

        Raises:
            TooFewUploads: if there are fewer than 4f + 3 uploads and f is above 0.
        """
        clients = len(round.uploads)
        malicious = self.settings.faced(clients, len(round.rejected))
        distances = round.updates.squared_distances
        chosen = sorted(repeated_krum(distances, malicious))
        scores = krum_scores(distances, malicious)
        out = [position not in chosen for position in range(clients)]
        ranked = [position for position in scores.sort(descending=True, stable=True).indices.tolist() if out[position]]
        kept = len(chosen) - 2 * malicious
        model = round.bounded.only(chosen).updates.columnwise(lambda values: mean_nearest_to_median(values, kept))
        return Verdict(
            flagged=[position in ranked[:malicious] for position in range(clients)],
            excluded=out,
            model=model,
            scores=scores.tolist(),
        )


def repeated_krum(squared_distances: Tensor, malicious: int) -> list[int]:
    """Return the positions of the K - 2f uploads that Krum chooses one after the other, each among the rest.

    Args:
        squared_distances: (clients, clients), 0 on the diagonal.
        malicious: f.

    Example:
        >>> positions = torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0])
        >>> repeated_krum((positions - positions[:, None]).square(), malicious=1)
        [1, 0, 2]
    """
    left, chosen = list(range(len(squared_distances))), []
    while len(left) > 2 * malicious:
        among = torch.tensor(left, device=squared_distances.device)
        scores = krum_scores(squared_distances[among][:, among], malicious)
        chosen.append(left.pop(int(scores.argmin())))
    return chosen
