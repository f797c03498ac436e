"""Gaussian noise on a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.tied import with_one_value


def with_noise(
    model: Mapping[str, Tensor],
    names: Sequence[str],
    tied: Mapping[str, str],
    deviation: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the model with Gaussian noise N(0, deviation^2) added to the trainable parameters.

    Args:
        model: the state dict.
        names: the trainable parameters.
        tied: the names under which the network repeats a tensor, each with the parameter's own name.
        deviation: the standard deviation of the noise.
        generator: draws the noise, on the CPU.

    Example:
        >>> model = {"weight": torch.zeros(2), "running_mean": torch.zeros(2)}
        >>> noised = with_noise(model, ["weight"], {}, 0.1, torch.Generator().manual_seed(0))
        >>> bool((noised["weight"] == 0).any()), noised["running_mean"].tolist()
        (False, [0.0, 0.0])
    """
    trained = set(names)

    def noisy(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        largest = torch.finfo(tensor.dtype).max
        return (tensor + deviation * noise.to(tensor.device)).clamp(-largest, largest)

    noised = {name: noisy(tensor) if name in trained else tensor for name, tensor in model.items()}
    return with_one_value(noised, tied)
