"""Evidence from BatchNorm's statistics: the running means did not move with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import (
    TINY,
    median_and_spread,
    tracking,
    tracking_by_chance,
    z_score_exceeded_by,
)
from fedml_gradcam_ae.maths.order_statistics import median
from fedml_gradcam_ae.networks.batchnorm import Statistics

# The figures were measured on development seeds; see docs/research/robust.md.
FEWEST_SAMPLES = 0.5  # Clients with less than this fraction of the median samples are not in the reference set.
FOLLOWING = 0.1  # Minimum median of the absolute tracking to be informative: 0.08 at most for one batch, else >= 0.14.
CHANCE = 2.0  # That median must also exceed this many standard deviations of the cosines of unrelated channels.
TRACKED = 0.5  # Clients whose tracking is at least this fraction of the median are never flagged for `statistics`.
REVERSED = 0.5  # Clients whose tracking is below minus this fraction of the median count as reversed ...
CLEAR = 3.0  # ... if their tracking is also this many MADs below the median.


class RunningMeans(Kind):
    """Running means that track the weights much less than the median client's, or that went against them.

    Args:
        false_alarm: the share of benign clients that the threshold may flag.
    """

    name = "statistics"
    reason = "the running means of its BatchNorm layers did not move with its weights"

    def __init__(self, false_alarm: float) -> None:
        self.false_alarm = false_alarm

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.statistics is not None and int(reference.sum()) >= FEWEST

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        assert observed.statistics is not None
        return tracking_scores(observed.statistics, reference, observed.samples, self.false_alarm)


def tracking_scores(found: Statistics, reference: Tensor, samples: Sequence[float], false_alarm: float) -> Tensor:
    """Score statistics that track the weights less than half as well as the median, or that went against them.

    The former score is the robust z-score of `tracking`, in units of its threshold, scaled by
    samples / median(samples), at most 1, since statistics follow the weights only from a client's second batch on.
    For the same reason, clients with less than half of the median samples are not in the reference set.
    Statistics that went against the weights by half of the median or more do not come from training, whatever the
    data, so that a much lower z-score is enough.

    Reversed updates have the cosines of benign ones with the opposite sign. Median and MAD are those of the absolute
    cosines, which do not depend on the number of reversed updates; they would widen the spread of the signed cosines.

    Args:
        found: the stored and the measured means.
        reference: (clients,), bool: the clients that may be in the reference set.
        samples: the number of samples that each client claims.
        false_alarm: the share of benign clients that the threshold may flag.

    Returns:
        (clients,), in units of the threshold; 0 where the median tracking is too low to be informative.
    """
    tracked = tracking(found.measured, found.stored, found.layers, reference)
    claimed = torch.tensor(samples, dtype=tracked.dtype, device=tracked.device)
    share = (claimed / median(claimed).clamp(min=TINY)).clamp(max=1)
    peers = reference & (share >= FEWEST_SAMPLES)
    peers = peers if int(peers.sum()) >= FEWEST else reference
    center, spread = median_and_spread(tracked.abs(), peers)
    if center < max(FOLLOWING, CHANCE * tracking_by_chance(found.layers)) or median(tracked[peers]) <= 0:
        return torch.zeros_like(tracked)  # the statistics of this round are not informative
    spreads, follows = (center - tracked) / spread, tracked / center
    beyond = spreads / z_score_exceeded_by(false_alarm, int(peers.sum()))
    behind = torch.minimum(beyond, (1 - follows) / (1 - TRACKED)) * share
    against = torch.minimum(spreads / CLEAR, -follows / REVERSED)
    return torch.maximum(behind, against)
