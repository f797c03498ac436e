"""AlignIns: leave out updates with an unusual share of majority signs or an unusual angle to the global model.

Source: Xu, Zhang and Hu, "Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection",
CVPR 2025, arXiv 2503.07978. The published code weights the average by samples, and takes the angle over the whole state
dict, BatchNorm's statistics included. Here the average is unweighted and the angle is over trainable parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates, flatten
from fedml_gradcam_ae.defenses.shared.clipped_mean import clipped_mean
from fedml_gradcam_ae.defenses.shared.magnitudes import kth_largest
from fedml_gradcam_ae.maths.cosine import cosines
from fedml_gradcam_ae.maths.median_z_scores import median_z_scores
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("alignins")
class AlignIns(Defense):
    """The clipped mean of the clients whose signs and whose angle to the global model are usual.

    Two numbers describe an update u_i: the share of its largest coordinates whose sign is that of the majority of
    clients (MPSA), and its cosine with the global model w_g (TDA). A client is kept if both are less than `sign_radius`
    and `angle_radius` standard deviations from their medians. The kept updates are clipped to their median length and
    averaged without weights. Of fewer than three clients none is left out.

    At a radius of 1, some honest clients are further from the median than the radius in every round.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.alignins import AlignIns
        >>> models = ([2.0, 1.1], [2.1, 1.0], [2.0, 0.9], [2.1, 1.1], [0.0, 0.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([model])} for model in models],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.ones(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = AlignIns(AlignIns.Settings()).judge(round)
        >>> verdict.excluded  # the last update has the signs and the direction of none of the others
        [False, False, False, False, True]
    """

    class Settings(DefenseSettings):
        """The settings of AlignIns; the defaults are those of the paper and its published code."""

        largest: float = Field(
            default=0.3, gt=0, le=1, description="the share of coordinates, the largest of an update, whose signs count"
        )
        sign_radius: float = Field(
            default=1.0, gt=0, description="lambda_s: how far from the median a kept share of signs is (deviations)"
        )
        angle_radius: float = Field(
            default=1.0, gt=0, description="lambda_c: how far from the median a kept cosine is (deviations)"
        )

    settings: Settings

    @override
    def protects(self, clients: int) -> bool:
        """Return False: where two clients are kept, one of them may be of the usual direction and any length."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Filter clients by signs and by angle, and clip and average the kept updates.

        The score is the larger of the two distances from the median, each in units of its radius.
        """
        settings, updates = self.settings, round.updates
        norms = updates.squared_norms.sqrt()
        center = flatten(updates.center, updates.names).double()
        angles = cosines(updates.dot(updates.center), norms, float(torch.linalg.vector_norm(center)))
        signs = sign_alignment(updates, settings.largest)
        scores = torch.maximum(
            median_z_scores(signs) / settings.sign_radius, median_z_scores(angles) / settings.angle_radius
        )
        excluded = (scores >= 1).tolist()
        answer: dict[str, Any] = {"weights": [0.0] * len(excluded)}
        if not all(excluded):
            answer = {"model": clipped_mean(round, excluded, float(median(norms[~(scores >= 1)])))}
        return Verdict(flagged=excluded, excluded=excluded, scores=scores.tolist(), threshold=1.0, **answer)


def sign_alignment(updates: Updates, share: float) -> Tensor:
    """Return MPSA, the share of each update's largest coordinates whose sign is that of the majority of clients.

    The majority's sign in a coordinate is the sign of the sum of all signs, 0 at a tie. Where several coordinates are
    as large as the smallest that counts, all of them count in part.

    Args:
        updates: the updates u_i.
        share: the share of coordinates that count, at least one.

    Returns:
        (clients,), float64.

    Example:
        >>> center = {"weight": torch.zeros(4)}
        >>> rows = ([4.0, 3.0, 2.0, 1.0], [3.0, 4.0, 1.0, 2.0], [-4.0, 3.0, 2.0, 1.0])
        >>> updates = Updates([{"weight": torch.tensor(row)} for row in rows], center, ["weight"])
        >>> sign_alignment(updates, share=0.5)
        tensor([1.0000, 1.0000, 0.5000], dtype=torch.float64)
    """
    count = max(1, int(share * updates.size))
    smallest = kth_largest(updates, count)[:, None]
    # For each client: how many coordinates are larger than the smallest that counts, and how many of these agree; how
    # many are equal to it, and how many of these agree.
    above, above_agree, equal, equal_agree = torch.zeros(4, len(updates), dtype=torch.float64, device=smallest.device)
    for block in updates.blocks(reuse_buffer=True):
        signs = block.sign()
        agree = signs == signs.sum(dim=0).sign()
        sizes = block.abs_()
        larger, as_large = sizes > smallest, sizes == smallest
        above += larger.sum(dim=1)
        above_agree += (larger & agree).sum(dim=1)
        equal += as_large.sum(dim=1)
        equal_agree += (as_large & agree).sum(dim=1)
    found: Tensor = (above_agree + (count - above) * equal_agree / equal.clamp(min=1)) / count
    return found
