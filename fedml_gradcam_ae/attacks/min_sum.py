"""Min-Sum: no further from all benign updates together than the benign update that is furthest from them.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, the variant that does not know the server's rule. The length is exact here, where the
paper and its successors search for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders
from fedml_gradcam_ae.attacks.shared.deviations import DeviationSettings, largest_within, perturbation
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import squared_distances


@register_attack("min_sum")
class MinSum(Attack):
    """All attackers upload u = mean + gamma p, no further from all benign updates than the most distant of those.

    gamma is the largest number with sum_i ||u - u_i||^2 <= max_i sum_j ||u_i - u_j||^2, over the overheard u_i.
    """

    Settings = DeviationSettings

    settings: DeviationSettings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        p = perturbation(colluders, self.settings.direction)
        # The deviations sum to 0, so the sum of the J inequalities is one about gamma^2 ||p||^2 alone.
        total = colluders.gram.trace()
        worst = squared_distances(colluders.gram).sum(dim=1).max()
        bound = (worst - total) / len(colluders.heard)
        gamma = largest_within(bound.new_zeros(1), bound.new_zeros(1), float(p @ p), bound[None])
        return colluders.upload(colluders.mean + gamma * p)
