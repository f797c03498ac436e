"""FreqFed: keep a majority cluster of models by the cosine distance of their low frequencies.

Source: Fereidooni et al., "FreqFed: A Frequency Analysis-Based Approach for Mitigating Poisoning Attacks in Federated
Learning", NDSS 2024, arXiv 2312.04432. The authors' code is not public as far as we know. That each tensor is a matrix
of its first dimension and the rest, and that its low frequencies are a triangle in the corner of its spectrum, is our
reading. Other implementations flatten the output layer and leave out the others, or compare updates in place of models;
the latter is `angles: updates`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.fft import dct
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.interfaces import Defense
from fedml_gradcam_ae.contract.registry import register_defense
from fedml_gradcam_ae.contract.round import Round, Verdict, sample_weights
from fedml_gradcam_ae.contract.settings import DefenseSettings
from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.flame import outside_majority
from fedml_gradcam_ae.maths.cosine import cosine_matrix


@register_defense("freqfed")
class FreqFed(Defense):
    """The average of the one HDBSCAN cluster that holds more than half of the clients' low frequencies.

    Each tensor of a model goes through a two-dimensional discrete cosine transform. Of an (n, m) matrix the
    coefficients (i, j) with i / n + j / m below `low` are kept, an eighth of them at 0.5; of a vector, the first half.
    HDBSCAN clusters the clients by the cosine distance of what is kept of all tensors, with at least K // 2 + 1 clients
    in a cluster. The average is weighted by samples, as in FedAvg.

    Example:
        >>> import torch
        >>> from fedml_gradcam_ae import Round
        >>> from fedml_gradcam_ae.defenses.freqfed import FreqFed
        >>> models = ([1.0, 0.9, 0.8, 1.0], [1.0, 1.1, 0.8, 1.0], [1.0, 1.0, 0.7, 1.0], [-1.0, 1.0, -1.0, 1.0])
        >>> round = Round(
        ...     number=1,
        ...     client_ids=[1, 2, 3, 4],
        ...     uploads=[{"weight": torch.tensor([model])} for model in models],
        ...     samples=[10.0] * 4,
        ...     global_model={"weight": torch.zeros(1, 4)},
        ...     network=torch.nn.Linear(4, 1, bias=False),
        ...     test_data=[],
        ... )
        >>> FreqFed(FreqFed.Settings()).judge(round).excluded
        [False, False, False, True]
    """

    class Settings(DefenseSettings):
        """The settings of FreqFed."""

        angles: Literal["models", "updates"] = Field(
            default="models", description="what is transformed and compared: the paper's are the models' own weights"
        )
        low: float = Field(
            default=0.5,
            gt=0,
            le=2,
            description="the frequencies that are kept, as a fraction of the highest one in a direction; 2: all",
        )

    settings: Settings

    @override
    def judge(self, round: Round) -> Verdict:
        """Cluster the clients by their low frequencies and keep the majority cluster.

        The score is the mean cosine distance to the kept clients, or to all clients where none is kept.
        """
        gram = low_frequency_gram(round.updates, self.settings.low, of_models=self.settings.angles == "models")
        distances = 1 - cosine_matrix(gram)
        excluded = outside_majority(distances)
        kept = torch.tensor([not out for out in excluded])
        scores = distances[:, kept if not all(excluded) else ~kept].mean(dim=1)
        return Verdict(
            flagged=excluded,
            excluded=excluded,
            weights=sample_weights(round.samples, excluded),
            scores=scores.tolist(),
        )


def low_frequency_gram(updates: Updates, low: float, of_models: bool) -> Tensor:
    """Return the inner products of the clients' low frequencies, (clients, clients), float64, on the CPU.

    In memory at a time are one tensor of one client, and the low frequencies of one tensor of all clients.

    Args:
        updates: the updates u_i.
        low: the frequencies that are kept; see `low_frequencies`.
        of_models: whether the models w_g + u_i are transformed, or the updates.
    """
    total = np.zeros((len(updates), len(updates)))
    for name in updates.names:
        center = updates.center[name]
        shape = (center.shape[0], -1) if center.dim() > 1 else (1, -1)
        start = center.double().reshape(shape).cpu().numpy() if of_models and center.numel() else 0.0
        rows = []
        for position in range(len(updates)):
            one = Updates(updates.uploads, updates.center, [name], updates.mixing).only([position])
            pieces = [block[0].cpu() for block in one.blocks()]
            if pieces:
                rows.append(low_frequencies(torch.cat(pieces).reshape(shape).numpy() + start, low))
        if rows:
            found = np.stack(rows)
            total += found @ found.T
    return torch.from_numpy(total)


def low_frequencies(matrix: np.ndarray[Any, Any], low: float) -> np.ndarray[Any, Any]:
    """Return the low frequencies of a matrix, by its orthonormal discrete cosine transform (DCT-II) in both directions.

    Args:
        matrix: (rows, columns), at least one number.
        low: coefficient (i, j) is kept if i / rows + j / columns is less; that of the mean (0, 0) always is.

    Returns:
        (coefficients,), row by row.

    Example:
        >>> low_frequencies(np.array([[1.0, 1.0, 1.0, 5.0]]), low=0.5).round(3).tolist()
        [4.0, -2.613]
    """
    rows, columns = matrix.shape
    # Coefficients beyond these cannot be low, so the second transform and the mask need not see them.
    vertical = dct(matrix, axis=0, norm="ortho")[: math.ceil(min(1, low) * rows)]
    both = dct(vertical, axis=1, norm="ortho")[:, : math.ceil(min(1, low) * columns)]
    places = np.arange(len(both))[:, None] / rows + np.arange(both.shape[1]) / columns
    found: np.ndarray[Any, Any] = both[places < low]
    return found
