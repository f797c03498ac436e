"""FedML's weighted average, with means of integer tensors rounded instead of truncated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fedml.ml.aggregator.agg_operator import FedMLAggOperator

from fedml_gradcam_ae.contract.updates import is_whole, weighted_mean
from fedml_gradcam_ae.hooks.attacker import with_type
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.surroundings import Uploads, current


def patch(patches: Patches) -> None:
    """Replace the average of FedML's ServerAggregator; the simulators have averages of their own, see `rounded`."""
    stock = FedMLAggOperator.agg

    def agg(args: Any, raw_grad_list: Any) -> Any:
        simulated = current() is not None and getattr(args, "training_type", None) == "simulation"
        if not simulated and getattr(args, "federated_optimizer", None) != "FedAvg":
            return stock(args, raw_grad_list)
        # A simulated round averages models, whatever the optimizer. FedML's average depends on the optimizer's name:
        # for some names it is a sum, or missing.
        averaging = with_type(args, "federated_optimizer", "FedAvg")
        return rounded(lambda uploads: stock(averaging, uploads), raw_grad_list)

    patches.replace(
        FedMLAggOperator,
        "agg",
        staticmethod(agg),
        mends="cuts off the decimals of a mean of whole numbers: 6.9999 batches become 6; has no mean for FedOpt",
    )


def rounded(average: Callable[[Uploads], Any], uploads: Uploads) -> Any:
    """Return FedML's weighted average with the means of integer tensors rounded.

    Args:
        average: FedML's average. It takes `uploads` and may write into the first of them.
        uploads: pairs (sample count, state dict); at least one.

    Returns:
        What `average` returns. Only its integer tensors (BatchNorm's counts of batches, for instance) are replaced.
    """
    models = [model for _, model in uploads]
    total = math.fsum(samples for samples, _ in uploads)
    whole = [name for name, tensor in models[0].items() if is_whole(tensor)]
    weights = [samples / total for samples, _ in uploads]
    means = weighted_mean(models, weights, whole)
    answer = average(uploads)
    for name, mean in means.items():
        answer[name] = mean
    return answer
