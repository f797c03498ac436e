"""Min-Max: the benign mean, shifted as far as the largest distance between two benign updates allows.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, the variant that does not know the server's rule. Here the length of the shift is
exact; the paper and its successors search for it.
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
    """The update u = mean + gamma p for all attackers, with the largest gamma that the benign distances allow.

    No benign update is further from u than the two most distant ones are from each other: gamma is the largest number
    with max_i ||u - u_i|| <= max_ij ||u_i - u_j|| for the overheard updates u_i.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.min_max import MinMax
        >>> updates = ([0.0, 1.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([update])} for update in updates],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> MinMax(MinMax.Settings(direction="unit")).poison(round, attackers=[3])  # from the mean toward 0
        [{'weight': tensor([[0.1771, 0.1771]])}]
    """

    Settings = DeviationSettings

    settings: DeviationSettings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        p = perturbation(colluders, self.settings.direction)
        squares = colluders.gram.diagonal()
        widest = squared_distances(colluders.gram).max().expand(len(squares))
        slopes = colluders.dot(p)
        gamma = largest_within(squares, slopes - slopes.mean(), float(p @ p), widest)
        return colluders.upload(colluders.mean + gamma * p)
