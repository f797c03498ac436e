"""The networks of the suite."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.config import Run


def create(run: Run) -> nn.Module:
    """A new network with weights drawn from the run's seed."""
    torch.manual_seed(run.seed)
    return small_cnn()


def small_cnn(classes: int = 10) -> nn.Module:
    """Three convolutions with BatchNorm for gray 32 x 32 images; its last maps are 8 x 8."""

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *stage(1, 16),
        nn.MaxPool2d(2),
        *stage(16, 32),
        nn.MaxPool2d(2),
        *stage(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )
