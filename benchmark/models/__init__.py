"""The networks of the suite: `networks` has them, a new file there adds one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from benchmark.models.networks.small_cnn import small_cnn
from benchmark.models.registry import networks, register_model
from benchmark.models.settings import Model

__all__ = ["create", "networks", "register_model", "small_cnn"]


class Images(Protocol):
    """The images that a network is made for."""

    @property
    def size(self) -> int:
        """Height and width in pixels."""


class Run(Protocol):
    """What of a run decides its network; benchmark.config has the whole."""

    @property
    def model(self) -> Model:
        """The network."""

    @property
    def data(self) -> Images:
        """Which images."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""


def create(run: Run, classes: int, channels: int) -> nn.Module:
    """A new network for these images, with weights drawn from the run's seed unless the run names pretrained ones.

    Raises:
        SettingsError: if pretrained weights cannot be had.
    """
    torch.manual_seed(run.seed)
    named = {} if run.model.weights is None else {"weights": run.model.weights}
    network = networks()[run.model.name].build(classes=classes, channels=channels, size=run.data.size, **named)
    if run.model.channels_last:
        # Weights keep this layout when FedML copies, averages and loads them, and convolutions follow their weights.
        network = network.to(memory_format=torch.channels_last)
    return network
