"""Evidence of lengths: an update is longer than the client's number of samples explains.

Source: this project's own; docs/robust.md. Clients that start from one model, with one optimizer, make steps of similar
length, and as many of them as they have batches. Claims count up to five times the median, as they do in the average.
"""

from __future__ import annotations

import torch
from scipy.stats import theilslopes
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.defenses.gradcam_ae.kind import Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed
from fedml_gradcam_ae.defenses.gradcam_ae.suspicion import median_and_spread, z_score_exceeded_by

LARGEST_CLAIM = 5.0  # In units of the median claim, as in the average.
# Where claims have a smaller spread, as logarithms, their slope says nothing of a client with many more samples, which
# may move in proportion.
EQUAL_CLAIMS = 0.25
LEAST_SPREAD = 0.1  # Of logarithms: with equal data, lengths are so near one another that spreads alone would accuse.
SHORTEST, LONGEST = 1e-30, 1e300  # Other updates count as so long.


class Lengths(Kind):
    """The robust z-score of the logarithm of the length beyond what samples explain, in units of its threshold.

    Short updates are not suspected: they do no harm, and a client whose data the model knows has little to learn.

    Args:
        false_alarm: the share of benign clients that the threshold may flag.
    """

    name = "lengths"
    reason = "its update is longer than its number of samples explains"

    def __init__(self, false_alarm: float) -> None:
        self.false_alarm = false_alarm

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.directions is not None and int(reference.sum()) >= FEWEST

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        assert observed.directions is not None
        lengths = observed.directions.updates.diagonal().double().sqrt()
        samples = torch.tensor(observed.samples, dtype=torch.float64)
        excess, spread = excess_lengths(lengths, samples, reference.cpu())
        threshold = z_score_exceeded_by(self.false_alarm, int(reference.sum()))
        return (excess / spread / threshold).clamp(min=0)


def excess_lengths(lengths: Tensor, samples: Tensor, trusted: Tensor) -> tuple[Tensor, float]:
    """Return how much longer than explained each update is, as a logarithm, and the spread of that.

    Among the trusted clients, the line log(length) = level + slope log(samples) has the median slope of all pairs
    (Theil 1950, Sen 1968), between 0 (as long whatever the samples) and 1 (in proportion to them).

    Args:
        lengths: (clients,), at least 0; infinity is allowed.
        samples: (clients,), the number of samples that each client claims, above 0.
        trusted: (clients,), bool, at least one client.

    Returns:
        (clients,), float64, 0 for the median of trusted clients; and their scaled MAD, at least `LEAST_SPREAD`.

    Example:
        >>> lengths, samples = torch.tensor([1.0, 2.0, 3.0, 2.0, 20.0]), torch.tensor([10.0, 20.0, 30.0, 20.0, 20.0])
        >>> excess, spread = excess_lengths(lengths, samples, torch.ones(5, dtype=torch.bool))
        >>> [f"{value:.2f}" for value in excess.exp().tolist()], f"{spread:.2f}"
        (['1.00', '1.00', '1.00', '1.00', '10.00'], '0.10')
    """
    moved = lengths > 0  # an upload that equals the global model says nothing of lengths
    trusted = trusted & moved if bool((trusted & moved).any()) else trusted
    logs = lengths.double().nan_to_num(LONGEST, posinf=LONGEST).clamp(SHORTEST, LONGEST).log()
    claims = (samples.double() / samples[trusted].double().median()).clamp(max=LARGEST_CLAIM).log()
    slope = 0.0
    if float(claims[trusted].max()) > float(claims[trusted].min()):
        slope = min(max(float(theilslopes(logs[trusted].numpy(), claims[trusted].numpy()).slope), 0.0), 1.0)
    slopes = torch.full_like(claims, slope)
    if float(median_and_spread(claims, trusted)[1]) < EQUAL_CLAIMS:
        slopes[claims > 0] = 1.0
    excess = logs - slopes * claims
    center, spread = median_and_spread(excess, trusted)
    return excess - center, max(float(spread), LEAST_SPREAD)
