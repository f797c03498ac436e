"""Free riders: clients that train nothing and upload the global model with some noise as if it were their work.

Sources: Fraboni et al., "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021, section 3, whose
disguised free riders add noise with the standard deviation sigma t^-gamma in round t; and Lin et al., "Free-riders in
Federated Learning: Attacks and Defenses", arXiv 1911.12560, 2019, section 3, whose free riders repeat the last change
of the global model (`delta`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.networks.images import seeded_generator


@register_attack("free_rider")
class FreeRider(Attack):
    """The update N(0, sigma^2 t^(-2 gamma)) in round t, plus the last global update with `delta`.

    BatchNorm's statistics are those of the global model. The last global update is the change of the global model since
    the last round with an attack; in the first one there is none. It is not saved over a restart.

    Example:
        >>> import torch
        >>> from dataclasses import replace
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.free_rider import FreeRider
        >>> first = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 3.0, 2.0)],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> second = replace(first, number=2, global_model={"weight": torch.tensor([[2.0]])})
        >>> attack = FreeRider(FreeRider.Settings(sigma=0.0, delta=True))
        >>> [attack.poison(round, attackers=[2]) for round in (first, second)]
        [[{'weight': tensor([[0.]])}], [{'weight': tensor([[4.]])}]]
    """

    class Settings(AttackSettings):
        """The noise and what is repeated; with `sigma: 0` and without `delta` it is the paper's plain free rider."""

        sigma: float = Field(default=0.01, ge=0, description="the standard deviation of the noise in round 1")
        gamma: float = Field(default=1.0, ge=0, description="how fast the noise fades, as t^-gamma in round t")
        delta: bool = Field(default=False, description="whether the last global update is repeated")

    settings: Settings

    def __init__(self, settings: FreeRider.Settings | None = None) -> None:
        super().__init__(settings)
        self._last: Mapping[str, Tensor] | None = None

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one upload for each position in `attackers`, each with noise of its own."""
        settings, names = self.settings, round.parameters
        start = dict(round.global_model)
        base = start
        if settings.delta:
            if self._last is not None:
                base = {**start, **{name: _continued(self._last[name], start[name]) for name in names}}
            self._last = {name: start[name].detach().clone() for name in names}
        generator = seeded_generator(settings.seed, 1, round.number)
        deviation = settings.sigma * round.number**-settings.gamma
        return [with_noise(base, names, round.tied, deviation, generator) for _ in attackers]


def _continued(before: Tensor, now: Tensor) -> Tensor:
    return (2 * now.double() - before.double()).to(now.dtype)
