"""Min-Sum: the benign mean, shifted as far as the largest sum of squared benign distances allows.

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


@register_attack("min_sum")
class MinSum(Attack):
    """The update u = mean + gamma p for all attackers, with the largest gamma that the benign distances allow.

    u is no further from all benign updates together than the most distant of these: gamma is the largest number with
    sum_i ||u - u_i||^2 <= max_i sum_j ||u_i - u_j||^2 for the overheard updates u_i.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.min_sum import MinSum
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
        >>> MinSum(MinSum.Settings(direction="unit")).poison(round, attackers=[3])  # from the mean toward 0
        [{'weight': tensor([[0.2929, 0.2929]])}]
    """

    Settings = DeviationSettings

    settings: DeviationSettings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        p = perturbation(colluders, self.settings.direction)
        # The deviations sum to 0, so the terms linear in gamma cancel and only gamma^2 ||p||^2 is left.
        total = colluders.gram.trace()
        worst = squared_distances(colluders.gram).sum(dim=1).max()
        bound = (worst - total) / len(colluders.heard)
        gamma = largest_within(bound.new_zeros(1), bound.new_zeros(1), float(p @ p), bound[None])
        return colluders.upload(colluders.mean + gamma * p)
