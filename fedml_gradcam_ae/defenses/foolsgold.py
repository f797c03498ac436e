"""FoolsGold: clients whose updates over all rounds point the same way share one client's influence, or less.

Source: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020,
arXiv 1808.04866, Algorithm 1 with the confidence kappa = 1. FedML's own `fedml:foolsgold` adds up by position in the
list instead of by client, and compares weights instead of updates.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.defenses.shared.output_layer import output_updates
from fedml_gradcam_ae.maths.cosine import cosine_matrix

_LARGEST = torch.finfo(torch.float32).max
_ROUNDING = 1e-9


@register_defense("foolsgold")
class FoolsGold(Defense):
    """Weigh clients down by the largest cosine between what they and another client uploaded over all rounds.

    The paper adds up alpha_i u_i; here the weights are alpha_i n_i / sum_j alpha_j n_j, which is FedAvg when nobody
    resembles anybody. State: the sum of each client's updates, d numbers for every client ever seen.
    """

    class Settings(DefenseSettings):
        """The paper compares all parameters, or those of the output layer."""

        features: Literal["all", "output_layer"] = Field(
            default="all", description="the parameters that are compared; `output_layer` needs far less memory"
        )
        confidence: float = Field(
            default=1.0, gt=0, description="kappa: the larger, the nearer to 0 or 1 the weights before scaling"
        )

    settings: Settings

    def __init__(self, settings: FoolsGold.Settings) -> None:
        super().__init__(settings)
        self._sums: dict[ClientId, Tensor] = {}

    @override
    def judge(self, round: Round) -> Verdict:
        """Add this round's updates to the sums, compare those, and weigh."""
        similarities = pardoned(cosine_matrix(self._add(round)))
        alphas = influence(similarities, self.settings.confidence)
        shares = alphas * torch.tensor(round.samples, dtype=torch.float64)
        excluded = (alphas == 0).tolist()
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            weights=(shares / shares.sum()).tolist(),
            scores=similarities.amax(1).tolist(),
        )

    @override
    def state(self) -> dict[str, Any]:
        """What must outlive the process; later rounds change these very tensors."""
        return {"sums": dict(self._sums)}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._sums = {client: total.clone() for client, total in state["sums"].items()}

    def _add(self, round: Round) -> Tensor:
        """Add the updates to their clients' sums; the sums' inner products, (clients, clients)."""
        updates = round.updates if self.settings.features == "all" else output_updates(round)
        for client in round.client_ids:
            if client not in self._sums:
                self._sums[client] = torch.zeros(updates.size, dtype=torch.float32)
        sums = [self._sums[client] for client in round.client_ids]
        gram, start = torch.zeros(len(sums), len(sums), dtype=torch.float64), 0
        for block in updates.blocks(fleeting=True):
            rows = block.cpu()
            part = slice(start, start := start + rows.shape[1])
            for total, row in zip(sums, rows, strict=True):
                total[part] = row.add_(total[part]).clamp_(-_LARGEST, _LARGEST)
            gram.addmm_(rows, rows.T)
        return gram


def pardoned(cosines: Tensor) -> Tensor:
    """cs_ij times v_i / v_j where v_j > v_i, v_i = max_j cs_ij: who resembles a sybil is not one yet.

    Args:
        cosines: (clients, clients).

    Returns:
        (clients, clients), 0 on the diagonal: as commonly implemented, a largest cosine is never below 0.
    """
    others = cosines.clone().fill_diagonal_(0)
    largest = others.amax(1)
    pardon = torch.where(largest > largest[:, None], largest[:, None] / largest, torch.ones_like(others))
    return others * pardon


def influence(similarities: Tensor, confidence: float = 1.0) -> Tensor:
    """alpha_i, (clients,): 1 - max_j cs_ij, scaled to the largest being 1, then kappa (logit + 1/2), within [0, 1].

    Args:
        similarities: (clients, clients), pardoned, 0 on the diagonal.
        confidence: kappa.

    Returns:
        In [0, 1], above 0 for at least one client; 1 for all if each has a twin among the others.
    """
    alphas = (1 - similarities.amax(1)).clamp(0, 1)
    if not float(alphas.max()) > _ROUNDING:
        return torch.ones_like(alphas)  # all look like sybils of one client: the aggregate is the same for any weights
    alphas = (alphas / alphas.max()).clamp(max=0.99)
    return (confidence * (alphas.logit() + 0.5)).clamp(0, 1)
