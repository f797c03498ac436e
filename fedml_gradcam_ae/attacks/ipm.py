"""IPM, inner product manipulation: the reversed benign mean.

Source: Xie et al., "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019. The
paper uses gradients; here the attack uses updates. Its experiments use epsilon 0.1; later work uses 2, among others.
Other libraries call epsilon tau and differ only in the default. Searching for epsilon in every round (`optimal`) is
ByzFL's; see `shared.line_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders
from fedml_gradcam_ae.attacks.shared.line_search import OptimizedSettings, most_harmful
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round


@register_attack("ipm")
class InnerProductManipulation(Attack):
    """The update u = -epsilon * mean for all attackers, with the unweighted mean of the overheard updates.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.ipm import InnerProductManipulation
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 3.0, 2.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> InnerProductManipulation(InnerProductManipulation.Settings(epsilon=0.5)).poison(round, attackers=[2])
        [{'weight': tensor([[-1.]])}]
    """

    class Settings(OptimizedSettings):
        """The settings of IPM.

        A small epsilon keeps the poisoned upload near the global model. With a large epsilon the average of the round
        can point backward.
        """

        factor = "epsilon"
        epsilon: Annotated[float, Field(gt=0)] | Literal["optimal"] = Field(
            default=0.1,
            description="length of the reversed mean, in units of the benign mean; `optimal`: searched for in each "
            "round, see `against`",
        )

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        epsilon = self.settings.epsilon
        if epsilon == "optimal":
            epsilon = most_harmful(colluders, self.settings, lambda factor: -factor * colluders.mean)
        return colluders.upload(-epsilon * colluders.mean)
