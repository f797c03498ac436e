"""Replay: each attacker uploads its own model of some rounds ago.

Source: this project's own. What stale uploads do without malice is studied by Xie et al., "Asynchronous Federated
Optimization", OPT 2020.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.upload import ClientId, Upload


@register_attack("replay")
class Replay(Attack):
    """The honest upload that an attacker made `age` of its attacks ago, BatchNorm's running statistics included.

    An attacker keeps its uploads from its first attack on: as long as there are fewer, it uploads the oldest one, which
    is the honest one in the first round. They are not saved over a restart.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.replay import Replay
        >>> attack = Replay(Replay.Settings(age=2))
        >>> for number in (1, 2, 3, 4):
        ...     round = Round(
        ...         number=number,
        ...         client_ids=[1, 2, 3],
        ...         uploads=[{"weight": torch.tensor([[10.0 * client + number]])} for client in (1, 2, 3)],
        ...         samples=[10.0] * 3,
        ...         global_model={"weight": torch.zeros(1, 1)},
        ...         network=torch.nn.Linear(1, 1, bias=False),
        ...         test_data=[],
        ...     )
        ...     print(attack.poison(round, attackers=[2]))
        [{'weight': tensor([[31.]])}]
        [{'weight': tensor([[31.]])}]
        [{'weight': tensor([[31.]])}]
        [{'weight': tensor([[32.]])}]
    """

    class Settings(AttackSettings):
        """The age of the uploads."""

        age: int = Field(default=3, ge=1, description="how many rounds with an attack the uploads are old")

    settings: Settings

    def __init__(self, settings: Replay.Settings | None = None) -> None:
        super().__init__(settings)
        self._own: dict[ClientId, deque[Upload]] = {}

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one old upload for each position in `attackers`."""
        uploads = []
        for attacker in attackers:
            kept = self._own.setdefault(round.client_ids[attacker], deque(maxlen=self.settings.age + 1))
            kept.append({name: tensor.detach().clone() for name, tensor in round.uploads[attacker].items()})
            uploads.append({name: tensor.clone() for name, tensor in kept[0].items()})
        return uploads
