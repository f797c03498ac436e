"""Mimic: all attackers copy one benign client, whose data then count several times.

Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022. As in the
paper, the client is the one furthest along the direction of largest variance. The paper estimates the direction over
the first rounds. Here, as commonly implemented, it is that of the round in which the client is chosen. In ByzFL the
client is a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings
from fedml_gradcam_ae.contract.interfaces import Attack
from fedml_gradcam_ae.contract.registry import register_attack
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.screening import upload_problem
from fedml_gradcam_ae.contract.upload import ClientId


@register_attack("mimic")
class Mimic(Attack):
    """The model of one benign client for all attackers, BatchNorm's running statistics included.

    The client is chosen among the overheard ones and copied in all later rounds that it takes part in. In a round in
    which it is missing (or has become an attacker), another client is chosen. The choice is not saved: after a restart
    a client is chosen again.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.attacks.mimic import Mimic
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 2.0, 4.0, 2.0)],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> Mimic(Mimic.Settings()).poison(round, attackers=[3])
        [{'weight': tensor([[4.]])}]
    """

    class Settings(ColludingSettings):
        """The settings of the attack.

        Without jitter the copies are exact. Their distances are 0, so that rules by distance prefer them.
        """

    settings: Settings

    def __init__(self, settings: Mimic.Settings | None = None) -> None:
        super().__init__(settings)
        self.copied: ClientId | None = None

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return one copy for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        position = self._followed(round, attackers)
        if position is None:
            position = colluders.heard[furthest(colluders.gram)]
            self.copied = round.client_ids[position]
        model = round.uploads[position]
        if not self.settings.jitter:  # an exact copy; w_g + (w_j - w_g) would differ by rounding
            return [{name: tensor.clone() for name, tensor in model.items()} for _ in attackers]
        update = Colluders(round, attackers, self.settings, heard=[position]).mean
        return colluders.uploads(colluders.jittered(update), buffers=[model] * len(attackers))

    def _followed(self, round: Round, attackers: Sequence[int]) -> int | None:
        """Return the position of the client chosen before; None if it cannot be copied in this round."""
        candidates = [i for i in range(len(round.uploads)) if i not in attackers] or attackers
        for position in candidates:
            if round.client_ids[position] == self.copied:
                return position if upload_problem(round.uploads[position], round.global_model) is None else None
        return None


def furthest(gram: Tensor) -> int:
    """Return the client whose deviation R_i from the mean is furthest along the direction of largest variance.

    That direction is the top right singular vector v of the rows R_i, and <R_i, v> = sqrt(l) e_i with the top
    eigenvalue l and eigenvector e of their inner products, so that no vector of the size of a model is needed. Both
    signs of <R_i, v> count alike.

    Args:
        gram: (clients, clients), <R_i, R_j>.

    Returns:
        The client's position in `gram`.

    Example:
        >>> deviations = torch.tensor([1.0, 2.0, -3.0])
        >>> furthest(torch.outer(deviations, deviations))
        2
    """
    # Infinity and NaN occur only if no upload of the round is usable; then it does not matter which one is copied.
    _, vectors = torch.linalg.eigh(gram.nan_to_num(0, 0, 0))
    return int(vectors[:, -1].abs().argmax())
