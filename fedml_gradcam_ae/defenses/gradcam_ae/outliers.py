"""Gross outliers that heat maps do not show: changes of single tensors and of the outputs.

Source: this project's own; docs/robust.md. The two kinds of evidence are in units of their thresholds as in
the other kinds, but 0 up to the threshold, since they only find changes that no training makes.

* `steps`: one tensor moved much further than is proportionate. A client with unusual or many data moves every tensor
  further than other clients do, some hundred times as far where the others have nothing left to learn, so its steps are
  compared with its other steps as well;
* `outputs`: the class scores on the probe images are far from the global model's, both compared with the scale of the
  global model's scores and with the median client's change.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.bounding import Steps, lower_median
from fedml_gradcam_ae.defenses.gradcam_ae.kind import Finding, Kind
from fedml_gradcam_ae.defenses.gradcam_ae.observed import FEWEST, Observed

FARTHEST_STEP = 50.0  # Threshold of a step relative to other clients and to the client's other tensors; benign: <= 22.
FARTHEST_OUTPUT = 25.0  # Threshold of the change of the class scores, in usual changes; benign clients: at most 8.
# Tensors that the median client moves less than this, relative to the tensor that it moves most, count as not moved: a
# bias in front of BatchNorm has no gradient but rounding errors, unless drop connect hides some images from it.
ROUNDING = 1e-6
LIMIT = 1e9  # Scores and output changes are clamped to this; it replaces infinity and NaN.


class OutputOutliers(Kind):
    """Class scores on the probe images that are far from the global model's."""

    name = "outputs"
    reason = "its outputs on the server's test images are far from other clients'"

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.models is not None

    @override
    def score(self, observed: Observed, reference: Tensor) -> Tensor:
        models = observed.models
        assert models is not None
        return output_scores(models.outputs[1:], models.outputs[0]).cpu()[models.judged]


class StepOutliers(Kind):
    """One tensor that moved much further than the client's other tensors and those of other clients."""

    name = "steps"
    reason = "its change of one tensor is much longer than the median client's"

    @override
    def applies(self, observed: Observed, reference: Tensor) -> bool:
        return observed.models is not None

    @override
    def score(self, observed: Observed, reference: Tensor) -> Finding:
        models = observed.models
        assert models is not None
        # The lengths were measured before this round lost the clients that are gone for good, since the bound on steps
        # needs them as well. The medians are those of the clients that are left.
        scores, reasons = step_scores(replace(models.steps, usual=lower_median(models.steps.lengths)))
        return Finding(scores[models.judged], [reasons[client] for client in models.judged.nonzero()[:, 0].tolist()])


def step_scores(steps: Steps) -> tuple[Tensor, list[str]]:
    """Return each client's least proportionate step: max_T r_T / max(1, median_T r_T).

    r_T = ||u_i,T|| / median_j ||u_j,T|| for the tensors T. A tensor that most clients do not move is ignored.

    Args:
        steps: the lengths of the clients' changes of each tensor.

    Returns:
        The scores, (clients,), float64, in units of the threshold and 0 up to it; and a reason per client, in words.
    """
    moved = steps.usual > ROUNDING * steps.usual.max() if len(steps.usual) else steps.usual > 0
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
