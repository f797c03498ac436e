"""The updates of a network's output layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.updates import Updates


def output_layer(network: nn.Module, parameters: Sequence[str]) -> list[str]:
    """Return the parameter names (weight, bias) of the last trained module, in the order of definition.

    Args:
        network: the architecture.
        parameters: the names of the trainable parameters, at least one.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> output_layer(network, [name for name, _ in network.named_parameters()])
        ['1.weight', '1.bias']
    """
    layers = []
    for prefix, module in network.named_modules():
        own = [name for name, _ in module.named_parameters(prefix, recurse=False) if name in parameters]
        if own:
            layers.append(own)
    return layers[-1]


def output_updates(round: Round) -> Updates:
    """Return the round's updates, restricted to the coordinates of the output layer.

    Args:
        round: the round.
    """
    updates = round.updates
    names = output_layer(round.network, round.parameters)
    return Updates(updates.uploads, updates.center, names, updates.mixing)
