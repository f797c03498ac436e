"""What clients send beside their models, such as gradients: aggregated as the defense decided about the models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.bounding import Steps, bounded
from fedml_gradcam_ae.contract.updates import weighted_mean
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks.aggregation import Aggregated
from fedml_gradcam_ae.hooks.surroundings import Uploads

Extras = Mapping[ClientId, Mapping[str, Tensor]]


def unusable(extras: Extras, what: str) -> dict[ClientId, str]:
    """Return a reason by client id for each client whose extra tensors are not finite.

    Args:
        extras: tensors by name, for each client.
        what: their name in the reason.

    Example:
        >>> unusable({3: {"weight": torch.tensor([1.0])}, 4: {"weight": torch.tensor([torch.nan])}}, "gradient")
        {4: "its gradient of 'weight' holds NaN or infinity"}
    """
    found = {}
    for client, tensors in extras.items():
        bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if bad:
            found[client] = f"its {what} of {bad[0]!r} holds NaN or infinity"
    return found


def aggregate_extras(
    extras: Extras, aggregated: Aggregated, average: Callable[[Uploads], Any]
) -> dict[str, Tensor] | None:
    """Return the mean of the extra tensors of the clients whose models were kept.

    In a round that a defense judged, the mean has the weights that the defense gave the models, and the length of each
    tensor is bounded like the change of a model's tensor (`contract.bounding`). If the defense gave no weights, since
    its model is no weighted mean (a median, for instance), the result is the coordinate-wise median of the clients that
    are not excluded.

    Args:
        extras: finite tensors by name, at least for each client whose upload passed the gate.
        aggregated: the round's result.
        average: FedML's average of pairs (sample count, tensors by name), for rounds without a defense.

    Returns:
        Tensors by name; None if no client's upload was kept.
    """
    round, report = aggregated.admitted, aggregated.report
    if round is None or not round.uploads or report.global_model_stays:
        return None
    given = [extras[client] for client in round.client_ids]
    if not report.judged:
        return dict(average([(n, OrderedDict(tensors)) for n, tensors in zip(round.samples, given, strict=True)]))
    of = {client.client: client for client in report.clients}
    found = [of[client] for client in round.client_ids]
    kept = [position for position, client in enumerate(found) if not client.excluded and client.weight != 0]
    if not kept:
        return None
    mine = [given[position] for position in kept]
    weights = [found[position].weight for position in kept]
    if any(weight is None for weight in weights):
        return {name: torch.stack([tensors[name] for tensors in mine]).median(dim=0).values for name in mine[0]}
    if round.largest_step is not None:
        zero = {name: torch.zeros_like(tensor) for name, tensor in given[0].items()}
        steps = Steps.of(given, zero, round.samples).only(kept)
        mine = list(bounded(mine, zero, steps.names, steps.factors(round.largest_step)))
    return weighted_mean(mine, _normalized([float(weight or 0.0) for weight in weights]))


def _normalized(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]
