"""Uploads that stand out grossly in what heat maps do not show: the outputs, and each tensor by itself.

Source: this project's own; docs/robust.md. Two kinds of evidence, in units of their thresholds as in `evidence.py`, but
0 up to them: they find what no training does, and have no opinion of the rest.

* `steps`: one tensor moved out of all proportion. A client with unusual or many data moves every tensor further than
  others do, some hundred times as far where these have nothing left to learn, so its steps are compared with one
  another as well;
* `outputs`: the class scores on the probe images are far from the global model's, both by the scale of these and by
  what is usual among clients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.bounding import Steps, lower_median

FEWEST = 4  # clients: the median of fewer says nothing
FARTHEST_STEP = 50.0  # times as far as other clients and as its own other tensors: honest ones were at 22 at most
FARTHEST_OUTPUT = 25.0  # usual changes of the scores: honest clients were at 8 at most
LIMIT = 1e9  # what is infinitely far counts as that far


def step_scores(steps: Steps) -> tuple[Tensor, list[str]]:
    """How far each client's least proportionate step is beyond the threshold.

    With r_T = ||u_i,T|| / median_j ||u_j,T||, this is max_T r_T / max(1, median_T r_T). A tensor that most clients do
    not move at all tells nothing.

    Returns:
        (clients,), float64, in units of the threshold, 0 up to it; and what was found, in words.
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
    """How far each client's change of the class scores is beyond the threshold.

    A change that all classes share changes no probability and is taken out. The unit is the larger of the scale of the
    global model's own scores and the median client's change.

    Args:
        outputs: (clients, images, classes), of the uploads.
        reference: (images, classes), of the global model.

    Returns:
        (clients,), float64, in units of the threshold, 0 up to it.
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
    """The values above 1, at most `LIMIT`, and 0 for the others."""
    return torch.where(values > 1, values.clamp(max=LIMIT), torch.zeros_like(values))


def strongest(parts: Sequence[tuple[Tensor, Sequence[str]]]) -> tuple[Tensor, list[str]]:
    """For each client the largest of several scores, and the words that go with it.

    Args:
        parts: (clients,) each, and a reason for each client.
    """
    values, which = torch.stack([scores for scores, _ in parts]).max(dim=0)
    return values, [parts[part][1][client] for client, part in enumerate(which.tolist())]
