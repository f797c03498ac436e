"""The part of the updates that belongs to a network's output layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import Updates


def output_layer(network: nn.Module, parameters: Sequence[str]) -> list[str]:
    """The names of the last module's weight and bias: the last one, in the order of definition, that is trained.

    Args:
        network: the architecture.
        parameters: the names of the trainable parameters, at least one.
    """
    layers = []
    for prefix, module in network.named_modules():
        own = [name for name, _ in module.named_parameters(prefix, recurse=False) if name in parameters]
        if own:
            layers.append(own)
    return layers[-1]


def output_updates(round: Round) -> Updates:
    """The round's updates, with the coordinates of the output layer alone."""
    updates = round.updates
    names = output_layer(round.network, round.parameters)
    return Updates(updates.uploads, updates.center, names, updates.mixing)
