"""Evidence of copies: a client's heat maps, or its channel means, are nearly another client's."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.defenses.gradcam_ae.kind import Finding, Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import Observed

# Networks in training have 3.5 or more, also with colluders among eight clients; a SqueezeNet most of whose outputs are
# always 0 has 1 to 2.
FEWEST_DIMENSIONS = 2.5
CHANNELS = 64  # Networks with fewer BatchNorm channels are not checked for `means`: they are similar by chance.


class Copies(Kind):
    """Heat maps that are closer to another client's than those of independently trained models are.

    Where the clients' maps differ in fewer than `FEWEST_DIMENSIONS` directions, some are near each other by chance, as
    points on a line are: the fraction is raised to the power FEWEST_DIMENSIONS / directions there.

    Args:
        copy_ratio: the fraction of the median distance below which a client is suspected.
    """

    name = "copies"
    reason = "its heat maps are nearly equal to another client's"

    def __init__(self, copy_ratio: float) -> None:
        self.copy_ratio = copy_ratio

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.comparable

    @override
    def reference(self, observed: Observed) -> Tensor:
        return observed.ratios.min(dim=1).values >= self._ratio(observed)

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        return copy_scores(observed.ratios.min(dim=1).values, self._ratio(observed))

    def _ratio(self, observed: Observed) -> float:
        return float(self.copy_ratio ** max(1.0, FEWEST_DIMENSIONS / observed.dimensions))


class Means(Kind):
    """Channel means, which the BatchNorm layers measure on the same images, that are closer to another client's.

    Args:
        mean_ratio: the fraction of the median distance below which a client is suspected; 0: means are not compared.
        copies: the evidence of copies among heat maps, whose reason is given where both apply, since heat maps can be
            looked at.
    """

    name = "means"
    reason = "the means that its layers produce are nearly equal to another client's"

    def __init__(self, mean_ratio: float, copies: Copies) -> None:
        self.mean_ratio, self.copies = mean_ratio, copies

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.comparable and self._compares(observed)

    @override
    def reference(self, observed: Observed) -> Tensor:
        if not self._compares(observed):
            return super().reference(observed)
        return observed.mean_ratios.min(dim=1).values >= self.mean_ratio

    @override
    def score(self, observed: Observed, reference: Tensor) -> Finding:
        copies = (self.copies.score(observed, reference) > 1).tolist()
        reasons = [self.copies.reason if copy else self.reason for copy in copies]
        return Finding(copy_scores(observed.mean_ratios.min(dim=1).values, self.mean_ratio), reasons)

    def _compares(self, observed: Observed) -> bool:
        found = observed.statistics
        return found is not None and self.mean_ratio > 0 and len(found.layers) >= CHANNELS


def copy_scores(nearest: Tensor, copy_ratio: float) -> Tensor:
    """Return log(nearest) / log(copy_ratio): 0 at the median distance or beyond, 1 at `copy_ratio` of it.

    Args:
        nearest: (clients,), each client's smallest `distance_ratios`; clamped to [1e-9, 1].
        copy_ratio: the ratio below which a client is suspected, below 1.

    Returns:
        (clients,), in units of the threshold.

    Example:
        >>> copy_scores(torch.tensor([0.9, 0.2, 0.02]), copy_ratio=0.2)
        tensor([0.0655, 1.0000, 2.4307])
    """
    return nearest.clamp(1e-9, 1).log() / torch.tensor(copy_ratio, dtype=torch.float32).log()
