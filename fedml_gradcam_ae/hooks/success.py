"""The attack success rate: how often the tested model classifies as a targeted attack wants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fedml_gradcam_ae.contract.interfaces import Attack, overrides
from fedml_gradcam_ae.hooks import aggregation
from fedml_gradcam_ae.hooks.logits import key
from fedml_gradcam_ae.networks.batches import image_tensor, pair
from fedml_gradcam_ae.networks.evaluating import evaluating
from fedml_gradcam_ae.networks.images import preserved_random_state
from fedml_gradcam_ae.networks.labels import class_indices
from fedml_gradcam_ae.networks.outputs import logits_of
from fedml_gradcam_ae.recording import events

# The name of the attack success rate among the metrics that FedML measures.
NAME = "Attack/Success"


def success_rate(
    attack: Attack, network: nn.Module, test_data: Iterable[Any], logits: str | int | None = None
) -> float | None:
    """Return the share of the images of `Attack.triggered` that a network classifies as the attack wants.

    Args:
        attack: the attack.
        network: the tested model; its mode and the random states are restored.
        test_data: the server's batches (images, labels).
        logits: where the logits are in what the network returns; see `logits_of`.

    Returns:
        A fraction; None if the attack wants no class, or no image is left to it.
    """
    if not overrides(type(attack), "triggered"):
        return None
    right = total = 0
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with evaluating(network), preserved_random_state(), torch.no_grad():
        for batch in test_data:
            images, labels = pair(batch)
            found = attack.triggered(image_tensor(images), class_indices(labels))
            if found is None:
                return None
            shown, wanted = found
            if len(shown):
                answers = logits_of(network(shown.to(device)), logits, len(shown)).argmax(dim=1).cpu()
                right += int((answers == wanted.cpu()).sum())
                total += len(shown)
    return right / total if total else None


def publish_success(number: int, network: nn.Module, test_data: Iterable[Any]) -> float | None:
    """Publish the success rate of the attack that is on as a `Measured` event, and return it.

    Args:
        number: the round that was tested, counted from 1.
        network: the tested model.
        test_data: the server's batches (images, labels).

    Returns:
        A fraction; None, and no event, without a targeted attack of the plug-in's.
    """
    attack = aggregation.attack()
    found = None if attack is None else success_rate(attack, network, test_data, key())
    if found is not None:
        events.publish(events.Measured(number=number, values={NAME: found}))
    return found
