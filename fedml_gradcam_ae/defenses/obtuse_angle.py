"""Obtuse angles: leave out updates that point away from the global model's last step.

Source: a common baseline, without a paper of its own. Near convergence the steps of honest clients point in all
directions, so many of them are left out, too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import model_length
from fedml_gradcam_ae.maths.cosine import cosines
from fedml_gradcam_ae.maths.order_statistics import median


@register_defense("obtuse_angle")
class ObtuseAngle(Defense):
    """The average, weighted by samples, of the clients with cos(u_i, g) >= 0, where g = w_g(t) - w_g(t-1).

    In the first round g is the coordinate-wise median update. Where the global model did not move, no client is left
    out; where all clients are left out, it does not move. An attacker that decides a step of the global model decides
    who is left out of the next round.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.obtuse_angle import ObtuseAngle
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3],
        ...     uploads=[{"weight": torch.tensor([update])} for update in ([1.0, 0.0], [2.0, 1.0], [-1.0, 0.5])],
        ...     samples=[10.0] * 3,
        ...     global_model={"weight": torch.zeros(1, 2)},
        ...     network=torch.nn.Linear(2, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> rule = ObtuseAngle()
        >>> verdict = rule.judge(round)  # g is the median, (1.0, 0.5)
        >>> verdict.weights, [f"{score:.2f}" for score in verdict.scores]
        ([0.5, 0.5, 0.0], ['-0.89', '-1.00', '0.60'])
    """

    def __init__(self, settings: DefenseSettings | None = None) -> None:
        super().__init__(settings)
        self._last: dict[str, Tensor] = {}

    @override
    def protects(self, clients: int) -> bool:
        """Return False: an upload of any length at an acute angle is averaged with the others."""
        return False

    @override
    def judge(self, round: Round) -> Verdict:
        """Leave out the clients with an obtuse angle; the score is -cos(u_i, g), with the threshold 0."""
        first = not self._last
        before = round.updates.columnwise(median) if first else self._last
        moved = {}
        for name in round.parameters:
            step = round.global_model[name].double() - before[name].to(round.global_model[name].device).double()
            moved[name] = -step if first else step
        length = model_length(moved, round.parameters)
        angles = cosines(round.updates.dot(moved), round.updates.squared_norms.sqrt(), length)
        out = (angles < 0).tolist()
        self._last = {name: round.global_model[name].clone() for name in round.parameters}
        return Verdict(
            flagged=out,
            excluded=out,
            weights=sample_weights(round.samples, out),
            scores=(-angles).tolist(),
            threshold=0.0,
        )

    @override
    def state(self) -> dict[str, Any]:
        """Return the state to save: the last round's global model."""
        return {"last": self._last}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._last = dict(state["last"])
