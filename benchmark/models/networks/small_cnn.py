"""A network for small images that trains in seconds."""

from __future__ import annotations

from torch import nn

from benchmark.models.registry import register_model


@register_model("small_cnn")
def small_cnn(classes: int = 10, channels: int = 1, size: int = 32) -> nn.Module:
    """Build a network of three convolutions with BatchNorm.

    Its last maps have a quarter of the images' height and width: 8 x 8 for 32 x 32 pixels.

    Args:
        classes: the number of classes.
        channels: of the images.
        size: height and width of the images in pixels; not used.
    """

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *stage(channels, 16),
        nn.MaxPool2d(2),
        *stage(16, 32),
        nn.MaxPool2d(2),
        *stage(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )
