"""The networks of the benchmark suite; a new file in `networks` adds one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from benchmark.models.networks.small_cnn import small_cnn
from benchmark.models.registry import networks, register_model
from benchmark.models.settings import Model

__all__ = ["create", "networks", "register_model", "small_cnn"]


class Images(Protocol):
    """The settings of the images that a network is built for."""

    @property
    def size(self) -> int:
        """Return the height and width of images in pixels."""


class Run(Protocol):
    """The settings of a run that decide its network; `benchmark.config.Run` has all of them."""

    @property
    def model(self) -> Model:
        """Return the settings of the network."""

    @property
    def data(self) -> Images:
        """Return the settings of the images."""

    @property
    def seed(self) -> int:
        """Return the seed of all random draws."""


def create(run: Run, classes: int, channels: int) -> nn.Module:
    """Build a new network for the run's images.

    Its weights are drawn with the run's seed, unless the run names pretrained ones.

    Args:
        run: the settings.
        classes: the number of classes.
        channels: of the images.

    Raises:
        SettingsError: if pretrained weights are not available.
    """
    torch.manual_seed(run.seed)
    named = {} if run.model.weights is None else {"weights": run.model.weights}
    network = networks()[run.model.name].build(classes=classes, channels=channels, size=run.data.size, **named)
    if run.model.channels_last:
        # Weights keep this layout when FedML copies, averages and loads them. Convolutions use the layout of weights.
        network = network.to(memory_format=torch.channels_last)
    return network
