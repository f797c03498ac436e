"""Min-Max: as far out as the two benign updates that are furthest apart.

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


@register_attack("min_max")
class MinMax(Attack):
    """All attackers upload u = mean + gamma p, no further from any benign update than those are from each other.

    gamma is the largest number with max_i ||u - u_i|| <= max_ij ||u_i - u_j||, over the overheard u_i.
    """

    Settings = DeviationSettings

    settings: DeviationSettings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        p = perturbation(colluders, self.settings.direction)
        squares = colluders.gram.diagonal()
        widest = squared_distances(colluders.gram).max().expand(len(squares))
        slopes = colluders.dot(p)
        gamma = largest_within(squares, slopes - slopes.mean(), float(p @ p), widest)
        return colluders.upload(colluders.mean + gamma * p)
