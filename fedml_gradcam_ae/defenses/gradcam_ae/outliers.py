"""Gross outliers that heat maps do not show: changes of single tensors and of the outputs.

Source: this project's own; docs/robust.md. The two kinds of evidence are in units of their thresholds as in
`evidence.py`, but 0 up to the threshold, since they only find changes that no training makes.

* `steps`: one tensor moved much further than is proportionate. A client with unusual or many data moves every tensor
  further than other clients do, some hundred times as far where the others have nothing left to learn, so its steps are
  compared with its other steps as well;
* `outputs`: the class scores on the probe images are far from the global model's, both compared with the scale of the
  global model's scores and with the median client's change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.bounding import Steps, lower_median

FEWEST = 4  # With fewer clients, no client is judged: their median is too uncertain.
FARTHEST_STEP = 50.0  # Threshold of a step relative to other clients and to the client's other tensors; benign: <= 22.
FARTHEST_OUTPUT = 25.0  # Threshold of the change of the class scores, in usual changes; benign clients: at most 8.
LIMIT = 1e9  # Scores and output changes are clamped to this; it replaces infinity and NaN.


def step_scores(steps: Steps) -> tuple[Tensor, list[str]]:
    """Return each client's least proportionate step: max_T r_T / max(1, median_T r_T).

    r_T = ||u_i,T|| / median_j ||u_j,T|| for the tensors T. A tensor that most clients do not move at all is ignored.

    Args:
        steps: the lengths of the clients' changes of each tensor.

    Returns:
        The scores, (clients,), float64, in units of the threshold and 0 up to it; and a reason per client, in words.
    """
    moved = steps.usual > 0
    names = [name for name, keep in zip(steps.names, moved.tolist(), strict=True) if keep]
    if len(steps.lengths) < FEWEST or not names:
        return torch.zeros(len(steps.lengths), dtype=torch.float64), [""] * len(steps.lengths)
    ratios = steps.ratios[:, moved]
    values, which = (ratios / steps.proportions[:, None]).max(dim=1)
    why = [
        f"its change of {names[tensor]!r} is {ratios[client, tensor]:.3g} times as long as the median client's"
        for client, tensor in enumerate(which.tolist())
    ]
    return _beyond(values / FARTHEST_STEP), why


def output_scores(outputs: Tensor, reference: Tensor) -> Tensor:
    """Return each client's change of the class scores.

    A change that all classes share changes no probability and is subtracted. The unit of the change is the larger of
    the scale of the global model's own scores and the median client's change.

    Args:
        outputs: (clients, images, classes), the class scores of the uploads.
        reference: (images, classes), those of the global model.

    Returns:
        (clients,), float64, in units of the threshold and 0 up to it.

    Example:
        >>> changes = torch.tensor([1.0, 1.1, 0.9, 500.0]).view(4, 1, 1)
        >>> reference = torch.tensor([[1.0, -1.0]])
        >>> output_scores(reference * changes, reference)
        tensor([ 0.0000,  0.0000,  0.0000, 19.9600], dtype=torch.float64)
    """
    before = _centered(reference)
    changes = (_centered(outputs) - before).square().mean(dim=(1, 2)).sqrt().nan_to_num(LIMIT, posinf=LIMIT)
    if len(changes) < FEWEST:
        return torch.zeros_like(changes)
    unit = torch.maximum(before.square().mean().sqrt(), lower_median(changes[:, None])[0]).clamp(min=1e-12)
    return _beyond(changes / unit / FARTHEST_OUTPUT)


def _centered(scores: Tensor) -> Tensor:
    scores = scores.double()
    return scores - scores.mean(dim=-1, keepdim=True)


def _beyond(values: Tensor) -> Tensor:
    """Return the values above 1, clamped to `LIMIT`, and 0 in place of the others."""
    return torch.where(values > 1, values.clamp(max=LIMIT), torch.zeros_like(values))


def strongest(parts: Sequence[tuple[Tensor, Sequence[str]]]) -> tuple[Tensor, list[str]]:
    """Return each client's largest score and its reason.

    Args:
        parts: pairs of scores (clients,) and a reason per client.

    Returns:
        The largest scores, (clients,), and their reasons.

    Example:
        >>> strongest([(torch.tensor([0.0, 2.0]), ["a", "a"]), (torch.tensor([1.0, 0.0]), ["b", "b"])])
        (tensor([1., 2.]), ['b', 'a'])
    """
    values, which = torch.stack([scores for scores, _ in parts]).max(dim=0)
    return values, [parts[part][1][client] for client, part in enumerate(which.tolist())]
