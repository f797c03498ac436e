"""ALIE, "a little is enough": the benign mean, shifted by less than the benign clients scatter.

Source: Baruch et al., "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019. As there,
the shift is downward and the standard deviation is the population's; ByzFL shifts upward and divides by J - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round


@register_attack("alie")
class ALittleIsEnough(Attack):
    """All attackers upload u = mean - z std, mean and standard deviation per coordinate of the overheard updates."""

    class Settings(ColludingSettings):
        """The paper's formula gives 0, no attack, with few attackers: 2 of 20."""

        z: float | Literal["auto"] = Field(
            default=1.5, description="how many standard deviations; `auto`: the paper's formula, see `largest_z`"
        )

    settings: Settings

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One upload for each position in `attackers`."""
        z = self.settings.z
        if z == "auto":
            z = largest_z(len(round.uploads), len(attackers))
        colluders = Colluders(round, attackers, self.settings)
        return colluders.upload(colluders.mean - z * colluders.std)


def largest_z(clients: int, attackers: int) -> float:
    """z = Phi^-1((n - m - s) / (n - m)) with s = floor(n / 2 + 1) - m, the benign clients that have to be outdone.

    Where it is negative (few clients), z is 0: no attack. Where the attackers are a majority already, s <= 0, there
    is no bound; then z = Phi^-1((n - 1) / n), about where the outermost of n clients stands.

    Args:
        clients: n, all clients of the round.
        attackers: m.
    """
    outdone = clients // 2 + 1 - attackers
    share = (clients - attackers - outdone) / (clients - attackers) if outdone > 0 else (clients - 1) / clients
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0
