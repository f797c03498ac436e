"""The network of FedML's FEMNIST example, without any normalization, for images of any size and channels."""

from __future__ import annotations

from torch import nn

from benchmark.models.registry import register_model


@register_model("cnn")
def cnn(classes: int, channels: int, size: int) -> nn.Module:
    """Build two convolutions and two linear layers with dropout, 1.63 million parameters on 32 x 32 pixels.

    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, table 4; FedML's `CNN_DropOut` is the same for
    28 x 28 pixels and one channel.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels.
    """
    side = (size - 4) // 2  # two convolutions without padding, and one pooling
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * side * side, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )
