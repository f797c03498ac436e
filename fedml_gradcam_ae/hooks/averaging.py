"""FedML's weighted average, with whole numbers rounded instead of cut off."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fedml.ml.aggregator.agg_operator import FedMLAggOperator

from fedml_gradcam_ae.contract.updates import is_whole, weighted_mean
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.surroundings import Uploads


def patch(patches: Patches) -> None:
    """The average that FedML's ServerAggregator makes; the simulators have their own, see `rounded`."""
    stock = FedMLAggOperator.agg

    def agg(args: Any, raw_grad_list: Any) -> Any:
        if getattr(args, "federated_optimizer", None) != "FedAvg":
            return stock(args, raw_grad_list)
        return rounded(lambda uploads: stock(args, uploads), raw_grad_list)

    patches.replace(
        FedMLAggOperator,
        "agg",
        staticmethod(agg),
        mends="cuts off the decimals of a mean of whole numbers: 6.9999 batches become 6",
    )


def rounded(average: Callable[[Uploads], Any], uploads: Uploads) -> Any:
    """The average as FedML makes it, but for the tensors of whole numbers, which are the rounded means.

    Args:
        average: FedML's; it may write into the first upload.
        uploads: pairs of a number of samples and a state dict.
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
