"""FAA-DL: a one-class support vector machine on the uploads.

Source: Shi et al. 2022, as the GradCAM-AE paper (ACM TOPS 2025) describes it: a one-class SVM, with a kernel and a
soft margin, separates malicious uploads from benign ones. Its other half, the cryptographic verification of what
the server computes, is out of scope here.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings

_ON_THE_BOUNDARY = 1e-6


@register_defense("faa_dl")
class FAADL(Defense):
    """Leave out the uploads that a one-class SVM with an RBF kernel puts outside of its boundary.

    The kernel exp(-gamma ||u_i - u_j||^2) needs no more of the updates than their distances, which are exact and
    shared with other rules; the random projection of other implementations would only blur them.
    """

    class Settings(DefenseSettings):
        """The defaults are those of libsvm and scikit-learn; the paper names none."""

        nu: float = Field(
            default=0.5,
            gt=0,
            lt=1,
            description="the largest share of clients outside of the boundary; m equal outliers are seen while "
            "m is below nu * clients / 2",
        )
        gamma: float | Literal["scale"] = Field(
            default="scale",
            description="the kernel's width; `scale`: 1 over the mean squared distance of the updates from their mean",
        )

        @field_validator("gamma")
        @classmethod
        def _check_gamma(cls, value: float | str) -> float | str:
            if not isinstance(value, str) and value <= 0:
                raise ValueError("gamma must be above 0 or `scale`")
            return value

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Fit the machine on the round's updates and leave out what is outside."""
        scores = outlyingness(round.updates.squared_distances, self.settings.nu, self.settings.gamma)
        flagged = (scores > _ON_THE_BOUNDARY).tolist()
        return Verdict(
            flagged=flagged,
            excluded=flagged,
            weights=sample_weights(round.samples, flagged),
            scores=scores.tolist(),
            threshold=_ON_THE_BOUNDARY,
        )


def outlyingness(squared_distances: Tensor, nu: float, gamma: float | Literal["scale"]) -> Tensor:
    """Minus the decision function of a one-class SVM with an RBF kernel, (clients,), float64.

    Support vectors on the margin have 0 up to rounding. `scale` differs from scikit-learn's in that coordinates are
    centered one by one: a drift that all updates share says nothing about any of them.

    Args:
        squared_distances: (clients, clients).
        nu: bounds the share of points outside from above and that of support vectors from below.
        gamma: the kernel's width, or `scale`.
    """
    from sklearn.svm import OneClassSVM

    clients = len(squared_distances)
    if gamma == "scale":
        mean = float(squared_distances.sum()) / (2 * clients**2)
        if not mean > 0:
            return torch.zeros(clients, dtype=torch.float64)  # all alike: nobody is further out than anybody
        gamma = 1 / mean
    kernel = (-gamma * squared_distances).exp().nan_to_num(0).fill_diagonal_(1).cpu().numpy()
    machine = OneClassSVM(kernel="precomputed", nu=nu, tol=1e-9)
    return torch.as_tensor(-machine.fit(kernel).decision_function(kernel), dtype=torch.float64)
