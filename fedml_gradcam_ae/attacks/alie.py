"""ALIE, "a little is enough": the benign mean, shifted by a few standard deviations of the benign updates.

Source: Baruch et al., "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019. As in the
paper, the shift is downward and the standard deviation divides by the number of overheard updates J; ByzFL shifts
upward and divides by J - 1. Searching for z in every round (`optimal`) is ByzFL's; see `shared.line_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders
from fedml_gradcam_ae.attacks.shared.line_search import OptimizedSettings, most_harmful
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round


@register_attack("alie")
class ALittleIsEnough(Attack):
    """The update u = mean - z std for all attackers, with mean and std per coordinate of the overheard updates.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.alie import ALittleIsEnough
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 3.0, 2.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> ALittleIsEnough(ALittleIsEnough.Settings(z=1.5)).poison(round, attackers=[2])  # mean 2, std 1
        [{'weight': tensor([[0.5000]])}]
    """

    class Settings(OptimizedSettings):
        """The settings of ALIE.

        The paper's formula for z gives 0, which is no attack, where attackers are few: 2 of 20, for example.
        """

        factor = "z"
        z: float | Literal["auto", "optimal"] = Field(
            default=1.5,
            description="number of standard deviations; `auto`: the paper's formula, see `largest_z`; `optimal`: "
            "searched for in each round, see `against`",
        )

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`."""
        z = self.settings.z
        if z == "auto":
            z = largest_z(len(round.uploads), len(attackers))
        colluders = Colluders(round, attackers, self.settings)
        if z == "optimal":
            z = most_harmful(colluders, self.settings, lambda factor: colluders.mean - factor * colluders.std)
        return colluders.upload(colluders.mean - z * colluders.std)


def largest_z(clients: int, attackers: int) -> float:
    """Return the paper's z = Phi^-1((n - m - s) / (n - m)) with s = floor(n / 2 + 1) - m.

    s is the number of benign clients that the attackers need for a majority. Where the formula is negative (few
    clients), z is 0, which is no attack. Where the attackers are a majority, s <= 0, there is no bound; then
    z = Phi^-1((n - 1) / n), about the position of the outermost of n clients.

    Args:
        clients: n, the number of all clients in the round.
        attackers: m, the number of attackers.

    Example:
        >>> [f"{largest_z(clients=20, attackers=attackers):.2f}" for attackers in (2, 6, 9, 12)]
        ['0.00', '0.37', '0.91', '1.64']
    """
    outdone = clients // 2 + 1 - attackers
    share = (clients - attackers - outdone) / (clients - attackers) if outdone > 0 else (clients - 1) / clients
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0
