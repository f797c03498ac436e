"""Cosines between vectors whose inner products are known."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine_matrix(gram: Tensor) -> Tensor:
    """cos(x_i, x_j), (vectors, vectors).

    A vector that is zero, or too long for float64, has the cosine 0 with all others.

    Args:
        gram: (vectors, vectors), the inner products.
    """
    inverse = _inverse(gram.diagonal().clamp(min=0).sqrt())
    return (gram * inverse[:, None] * inverse).nan_to_num(0).clamp(-1, 1).fill_diagonal_(1)


def cosines(products: Tensor, norms: Tensor, norm: float) -> Tensor:
    """cos(x_i, y), (vectors,); 0 where one of the two is zero.

    Args:
        products: (vectors,), the inner products <x_i, y>.
        norms: (vectors,), ||x_i||.
        norm: ||y||.
    """
    return (
        (products * _inverse(norms) * _inverse(torch.as_tensor(norm, dtype=norms.dtype, device=norms.device)))
        .nan_to_num(0)
        .clamp(-1, 1)
    )


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
