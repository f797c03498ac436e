"""FAA-DL: a one-class support vector machine on the uploads.

Source: Shi et al. 2022, as the GradCAM-AE paper (ACM TOPS 2025) describes it: a one-class SVM, with a kernel and a
soft margin, separates malicious uploads from benign ones. The second part of FAA-DL, the cryptographic verification
of the server's computation, is out of scope here.
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

_ON_THE_BOUNDARY = 1e-6  # scores up to this count as 0: support vectors on the margin have 0 up to rounding


@register_defense("faa_dl")
class FAADL(Defense):
    """The average without the uploads outside of the boundary of a one-class SVM with an RBF kernel.

    The kernel exp(-gamma ||u_i - u_j||^2) needs only the pairwise distances of the updates, which are exact and shared
    with other rules. Other implementations use a random projection, which makes the distances less precise.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.faa_dl import FAADL
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4, 5],
        ...     uploads=[{"weight": torch.tensor([[value]])} for value in (1.0, 1.1, 0.9, 1.2, 9.0)],
        ...     samples=[10.0] * 5,
        ...     global_model={"weight": torch.zeros(1, 1)},
        ...     network=torch.nn.Linear(1, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> verdict = FAADL(FAADL.Settings(nu=0.5)).judge(round)
        >>> verdict.excluded
        [False, False, False, False, True]
        >>> verdict.weights
        [0.25, 0.25, 0.25, 0.25, 0.0]
    """

    class Settings(DefenseSettings):
        """The settings of FAA-DL; the defaults are those of libsvm and scikit-learn, since the paper names none."""

        nu: float = Field(
            default=0.5,
            gt=0,
            lt=1,
            description="upper bound of the share of clients outside of the boundary; m equal outliers are detected if "
            "m is below nu * clients / 2",
        )
        gamma: float | Literal["scale"] = Field(
            default="scale",
            description="gamma of the RBF kernel; `scale`: 1 over the mean squared distance of the updates from their "
            "mean",
        )

        @field_validator("gamma")
        @classmethod
        def _check_gamma(cls, value: float | str) -> float | str:
            if not isinstance(value, str) and value <= 0:
                raise ValueError("gamma must be above 0 or `scale`")
            return value

    settings: Settings

    @override
    def protects(self, clients: int) -> bool:
        """Return whether nu leaves room for one outlier, which is outside of the boundary if 1 < nu K / 2."""
        return super().protects(clients) and self.settings.nu * clients / 2 > 1

    @override
    def judge(self, round: Round) -> Verdict:
        """Fit the SVM on the round's updates and leave out the clients outside of its boundary."""
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
    """Return minus the decision function of a one-class SVM with an RBF kernel.

    Support vectors on the margin have 0 up to rounding. `scale` differs from scikit-learn's: each coordinate is
    centered by itself, so that a drift that all updates share does not change the result.

    Args:
        squared_distances: (clients, clients).
        nu: upper bound of the share of points outside, and lower bound of the share of support vectors.
        gamma: the kernel's width, or `scale`.

    Returns:
        (clients,), float64; above 0 outside of the boundary.
    """
    from sklearn.svm import OneClassSVM

    clients = len(squared_distances)
    if gamma == "scale":
        mean = float(squared_distances.sum()) / (2 * clients**2)
        if not mean > 0:
            return torch.zeros(clients, dtype=torch.float64)  # all updates are equal: no client is an outlier
        gamma = 1 / mean
    kernel = (-gamma * squared_distances).exp().nan_to_num(0).fill_diagonal_(1).cpu().numpy()
    machine = OneClassSVM(kernel="precomputed", nu=nu, tol=1e-9)
    return torch.as_tensor(-machine.fit(kernel).decision_function(kernel), dtype=torch.float64)
