"""Gaussian noise on the weights of a model."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import Upload


def with_noise(
    upload: Upload, names: Collection[str], deviation: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return a model with independent Gaussian noise on some of its tensors; the others are copied.

    Args:
        upload: the state dict.
        names: the tensors that get noise.
        deviation: the standard deviation of the noise.
        generator: draws it, on the CPU.

    Example:
        >>> upload = {"weight": torch.ones(2), "counter": torch.tensor(3)}
        >>> with_noise(upload, ["weight"], 0.0, torch.Generator())
        {'weight': tensor([1., 1.]), 'counter': tensor(3)}
    """

    def noisy(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return (tensor.double() + deviation * noise.to(tensor.device)).to(tensor.dtype)

    chosen = set(names)
    return {name: noisy(tensor) if name in chosen else tensor.clone() for name, tensor in upload.items()}
