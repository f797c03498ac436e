"""Cosine similarities of vectors, from their inner products."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine_matrix(gram: Tensor) -> Tensor:
    """Return the cosines cos(x_i, x_j), (vectors, vectors).

    A vector that is zero, or too long for float64, has the cosine 0 with all others. The diagonal is 1.

    Args:
        gram: (vectors, vectors), the inner products.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
        >>> cosine_matrix(vectors @ vectors.T)
        tensor([[ 1., -1.,  0.],
                [-1.,  1.,  0.],
                [ 0.,  0.,  1.]])
    """
    inverse = _inverse(gram.diagonal().clamp(min=0).sqrt())
    return (gram * inverse[:, None] * inverse).nan_to_num(0).clamp(-1, 1).fill_diagonal_(1)


def unit_products(gram: Tensor) -> Tensor:
    """Return the inner products of the vectors scaled to length 1, (vectors, vectors).

    A vector that is zero, or too long for float64, counts as zero: unlike in `cosine_matrix`, its diagonal is 0.

    Args:
        gram: (vectors, vectors), the inner products.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
        >>> unit_products(vectors @ vectors.T)
        tensor([[ 1., -1.,  0.],
                [-1.,  1.,  0.],
                [ 0.,  0.,  0.]])
    """
    squares = gram.diagonal()
    return cosine_matrix(gram) * (squares.isfinite() & (squares > 0))


def cosines(products: Tensor, norms: Tensor, norm: float) -> Tensor:
    """Return the cosines cos(x_i, y), (vectors,); 0 where one of the two vectors is zero.

    Args:
        products: (vectors,), the inner products <x_i, y>.
        norms: (vectors,), ||x_i||.
        norm: ||y||.

    Example:
        >>> cosines(torch.tensor([2.0, 0.0, -3.0]), torch.tensor([2.0, 0.0, 3.0]), norm=1.0)
        tensor([ 1.,  0., -1.])
    """
    return (
        (products * _inverse(norms) * _inverse(torch.as_tensor(norm, dtype=norms.dtype, device=norms.device)))
        .nan_to_num(0)
        .clamp(-1, 1)
    )


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
