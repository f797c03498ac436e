"""Robust learning rate (RLR): the mean update, reversed in coordinates where the clients' signs disagree.

Source: Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust Learning Rate",
AAAI 2021, arXiv 2007.03767, equation 2. The paper's threshold is a number of clients; here it is a share. FedML's own
`robust_learning_rate` is accepted and never called.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings


@register_defense("rlr")
class RobustLearningRate(Defense):
    """The mean update, times +1 in coordinates where |sum_i sign(u_i)| >= theta K, and times -1 in all others.

    The signs count equally, the mean is weighted by samples, as in the authors' code. No client is left out.
    BatchNorm's statistics are averaged by samples.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.rlr import RobustLearningRate
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([update])} for update in ([1.0, 1.0], [2.0, -1.0], [3.0, 3.0])],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> RobustLearningRate(RobustLearningRate.Settings(threshold=0.5)).judge(round).model  # the mean is (2, 1)
        {'weight': tensor([[ 2., -1.]])}
    """

    class Settings(DefenseSettings):
        """The threshold theta."""

        threshold: float = Field(
            default=0.4, ge=0, le=1, description="theta, the least |sum of signs| for a step forward (share of clients)"
        )

    settings: Settings
    not_composed = "it leaves out no client"

    @override
    def protects(self, clients: int) -> bool:
        """Return False: where the signs of most clients agree, one of any size is averaged with them."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Return the global model plus the mean update with the robust signs."""
        updates = round.bounded.updates
        weights = torch.tensor(sample_weights(round.samples, [False] * len(round.uploads)), dtype=torch.float64)
        weights = weights.to(round.global_model[round.parameters[0]].device)
        threshold = self.settings.threshold * len(round.uploads) - 1e-9  # the tolerance is for rounding
        return Verdict(model=updates.step(lambda block: robust_step(block, weights, threshold), weights))


def robust_step(updates: Tensor, weights: Tensor, threshold: float) -> Tensor:
    """Return the mean update with the robust learning rate's sign, (columns,).

    Args:
        updates: (clients, columns), float64.
        weights: (clients,), sum 1, float64.
        threshold: the least |sum of signs| for a step forward.

    Example:
        >>> updates = torch.tensor([[1.0, 1.0], [2.0, -1.0], [3.0, 3.0]], dtype=torch.float64)
        >>> robust_step(updates, torch.full((3,), 1 / 3, dtype=torch.float64), threshold=2)
        tensor([ 2., -1.], dtype=torch.float64)
    """
    agree = updates.sign().sum(dim=0).abs() >= threshold
    mean = weights @ updates
    return torch.where(agree, mean, -mean)
