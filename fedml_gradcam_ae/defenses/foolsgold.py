"""FoolsGold: reduce the weights of clients whose summed updates point in the same direction.

Source: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020,
arXiv 1808.04866, Algorithm 1 with the confidence kappa = 1. FedML's own `fedml:foolsgold` sums by position in the list
instead of by client, and compares weights instead of updates.
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

_LARGEST = torch.finfo(torch.float32).max  # sums are stored in float32 and clamped to this
_ROUNDING = 1e-9  # where no client's 1 - max_j cs_ij is above this, every client equals another one up to rounding


@register_defense("foolsgold")
class FoolsGold(Defense):
    """A weighted mean whose weights fall with a client's largest cosine to another client's updates of all rounds.

    The paper's aggregate is the sum of alpha_i u_i. Here the weights are alpha_i n_i / sum_j alpha_j n_j, which is
    FedAvg where no two clients are similar. State: the sum of each client's updates, d numbers for every client
    ever seen.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.foolsgold import FoolsGold
        >>> updates = ([1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [-1.0, -1.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([update])} for update in updates],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = FoolsGold(FoolsGold.Settings()).judge(round)
        >>> [f"{score:.1f}" for score in verdict.scores]  # clients 3 and 4 are sybils
        ['0.0', '0.0', '1.0', '1.0']
        >>> verdict.weights
        [0.5, 0.5, 0.0, 0.0]
    """

    class Settings(DefenseSettings):
        """The settings of FoolsGold; the paper compares all parameters, or those of the output layer."""

        features: Literal["all", "output_layer"] = Field(
            default="all", description="parameters that are compared; `output_layer` needs far less memory"
        )
        confidence: float = Field(
            default=1.0,
            gt=0,
            description="kappa: the larger, the closer to 0 or 1 are the factors on the sample counts",
        )

    settings: Settings
    remembers_clients = True

    def __init__(self, settings: FoolsGold.Settings | None = None) -> None:
        super().__init__(settings)
        self._sums: dict[ClientId, Tensor] = {}

    @override
    def protects(self, clients: int) -> bool:
        """Return False: it looks for uploads that resemble each other, and a single one resembles none."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Add the round's updates to the clients' sums and weight clients by the similarity of these sums."""
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
        """Return the state to save; it shares tensors that later rounds change in place."""
        return {"sums": dict(self._sums)}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._sums = {client: total.clone() for client, total in state["sums"].items()}

    def _add(self, round: Round) -> Tensor:
        """Add the updates to their clients' sums and return the sums' inner products, (clients, clients), float64."""
        updates = round.updates if self.settings.features == "all" else output_updates(round)
        for client in round.client_ids:
            if client not in self._sums:
                self._sums[client] = torch.zeros(updates.size, dtype=torch.float32)
        sums = [self._sums[client] for client in round.client_ids]
        gram, start = torch.zeros(len(sums), len(sums), dtype=torch.float64), 0
        for block in updates.blocks(reuse_buffer=True):
            rows = block.cpu()
            part = slice(start, start := start + rows.shape[1])
            for total, row in zip(sums, rows, strict=True):
                total[part] = row.add_(total[part]).clamp_(-_LARGEST, _LARGEST)
            gram.addmm_(rows, rows.T)
        return gram


def pardoned(cosines: Tensor) -> Tensor:
    """Return the cosines cs_ij, multiplied by v_i / v_j where v_j > v_i, with v_i = max_j cs_ij.

    The paper calls this pardoning: it keeps benign clients that are similar to a sybil from being punished like it.

    Args:
        cosines: (clients, clients).

    Returns:
        (clients, clients), 0 on the diagonal: as commonly implemented, a largest cosine is never below 0.

    Example:
        >>> pardoned(torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 1.0], [0.0, 1.0, 1.0]]))
        tensor([[0.0000, 0.2500, 0.0000],
                [0.5000, 0.0000, 1.0000],
                [0.0000, 1.0000, 0.0000]])
    """
    others = cosines.clone().fill_diagonal_(0)
    largest = others.amax(1)
    pardon = torch.where(largest > largest[:, None], largest[:, None] / largest, torch.ones_like(others))
    return others * pardon


def influence(similarities: Tensor, confidence: float = 1.0) -> Tensor:
    """Return the clients' weights alpha_i before scaling by samples.

    alpha_i = 1 - max_j cs_ij is divided by the largest of these values, mapped to kappa (logit(alpha_i) + 1/2) and
    clamped to [0, 1].

    Args:
        similarities: (clients, clients), pardoned, 0 on the diagonal.
        confidence: kappa.

    Returns:
        (clients,), in [0, 1], above 0 for at least one client; 1 for all if each client equals another one.

    Example:
        >>> influence(torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.0, 0.9], [0.0, 0.9, 0.0]]))
        tensor([1., 0., 0.])
    """
    alphas = (1 - similarities.amax(1)).clamp(0, 1)
    if not float(alphas.max()) > _ROUNDING:
        return torch.ones_like(alphas)  # every client equals another one, so that none can be preferred
    alphas = (alphas / alphas.max()).clamp(max=0.99)
    return (confidence * (alphas.logit() + 0.5)).clamp(0, 1)
