"""Mimic: all attackers copy one benign client, whose data then count several times.

Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022. As there,
the client is the one furthest along the direction of largest variance. There the direction is estimated over the first
rounds; here, as commonly implemented, it is that of the round in which the client is chosen. ByzFL is told the client.
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
    """All attackers upload the model of one benign client, BatchNorm's running statistics included.

    Chosen among the overheard clients, it is followed from then on, in every round that it takes part in; where it is
    missing (or has become an attacker), another one is chosen. The choice is not saved: a restart makes it anew.
    """

    class Settings(ColludingSettings):
        """Exact copies lie closest to one another, which rules that go by distances take for a virtue."""

    settings: Settings

    def __init__(self, settings: Mimic.Settings) -> None:
        super().__init__(settings)
        self.copied: ClientId | None = None

    @override
    def poison(self, round: Round, attackers: Sequence[int]) -> list[dict[str, Tensor]]:
        """One copy for each position in `attackers`."""
        colluders = Colluders(round, attackers, self.settings)
        position = self._followed(round, attackers)
        if position is None:
            position = colluders.heard[furthest(colluders.gram)]
            self.copied = round.client_ids[position]
        model = round.uploads[position]
        if not self.settings.jitter:  # bit by bit, which w_g + (w_j - w_g) would not be
            return [{name: tensor.clone() for name, tensor in model.items()} for _ in attackers]
        update = Colluders(round, attackers, self.settings, heard=[position]).mean
        return colluders.uploads(colluders.jittered(update), buffers=[model] * len(attackers))

    def _followed(self, round: Round, attackers: Sequence[int]) -> int | None:
        """The position of the client that was chosen before, if it can be copied in this round."""
        candidates = [i for i in range(len(round.uploads)) if i not in attackers] or attackers
        for position in candidates:
            if round.client_ids[position] == self.copied:
                return position if upload_problem(round.uploads[position], round.global_model) is None else None
        return None


def furthest(gram: Tensor) -> int:
    """Whose deviation R_i from the mean reaches furthest, in either sense, along the direction of largest variance.

    That direction is the top right singular vector v of the rows R_i, and <R_i, v> = sqrt(l) e_i with the top
    eigenvalue l and eigenvector e of their inner products: no vector of the size of a model is needed.

    Args:
        gram: (clients, clients), <R_i, R_j>.
    """
    # Infinity and NaN are here only if no upload of the round is usable; which one is copied does not matter then.
    _, vectors = torch.linalg.eigh(gram.nan_to_num(0, 0, 0))
    return int(vectors[:, -1].abs().argmax())
