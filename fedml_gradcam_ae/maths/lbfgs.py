"""The product of an approximate Hessian with a vector, from the last steps of an optimization.

Source: Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in limited memory methods",
Mathematical Programming 1994, Theorem 2.3, as FLDetector (arXiv 2207.09209) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_COLUMNS = 65_536


def lbfgs_product(steps: Tensor, changes: Tensor, vector: Tensor) -> Tensor:
    """B v, where B is the BFGS matrix of the pairs (s_j, y_j), the oldest first.

    Args:
        steps: (pairs, d), S: how the point moved.
        changes: (pairs, d), Y: how the gradient changed with it.
        vector: (d,), v.

    Returns:
        (d,), float64.
    """
    basis = [*steps, *changes, vector]
    last = torch.zeros(len(basis), 1, dtype=torch.float64)
    last[-1] = 1
    coefficients = lbfgs_coefficients(inner_products(basis), len(steps), last)[:, 0]
    return coefficients.to(vector.device) @ torch.stack(basis).double()


def lbfgs_coefficients(gram: Tensor, pairs: int, vectors: Tensor) -> Tensor:
    """The same product, for vectors that are combinations of the rows of [S; Y; anything else].

    B v = sigma v - [sigma S^T, Y^T] [[sigma S S^T, L], [L^T, -D]]^-1 [sigma S v; Y v], with sigma = s_n.y_n / s_n.s_n
    of the newest pair, L the strictly lower part of S Y^T and D its diagonal. Nothing in it is longer than the
    number of rows: the Gram matrix stands for them. B changes its sign with Y, so that updates may take the place
    of gradients.

    Args:
        gram: (rows, rows), inner products of all rows, those of S and Y first.
        pairs: how many pairs there are, at least 1.
        vectors: (rows, vectors), each column the coefficients of one v.

    Returns:
        (rows, vectors), the coefficients of each B v; all 0 where the newest pair has no curvature
        or the pairs are beyond arithmetic.
    """
    gram, vectors = gram.double().cpu(), vectors.double().cpu()
    nothing = torch.zeros_like(vectors)
    if not bool(torch.isfinite(gram).all()):
        return nothing
    # A pair times a number is the same pair to B, and Y over sigma only scales it: every block has entries around 1.
    scale = torch.ones(len(gram), dtype=torch.float64)
    lengths = gram.diagonal()[:pairs].sqrt()
    if not bool((lengths > 0).all()):
        return nothing
    scale[:pairs] = scale[pairs : 2 * pairs] = 1 / lengths
    sigma = gram[pairs - 1, 2 * pairs - 1] * scale[pairs - 1] ** 2
    if not bool(sigma.abs() > 0):
        return nothing
    scale[pairs : 2 * pairs] /= sigma
    scaled = gram * scale[:, None] * scale
    steps_by_changes = scaled[:pairs, pairs : 2 * pairs]
    lower = steps_by_changes.tril(-1)
    middle = torch.cat(
        [
            torch.cat([scaled[:pairs, :pairs], lower], dim=1),
            torch.cat([lower.T, -steps_by_changes.diagonal().diag()], dim=1),
        ]
    )
    products = (gram * scale[:, None])[: 2 * pairs] @ vectors
    if not bool(torch.isfinite(middle).all() and torch.isfinite(products).all()):
        return nothing
    # Steps that repeat each other make the matrix singular: the pseudo-inverse takes the shortest solution.
    solved = torch.linalg.pinv(middle, rtol=1e-12) @ products
    result = vectors.clone()
    result[: 2 * pairs] -= scale[: 2 * pairs, None] * solved
    result *= sigma
    return result if bool(torch.isfinite(result).all()) else nothing


def inner_products(vectors: Sequence[Tensor]) -> Tensor:
    """(vectors, vectors), float64, summed piece by piece.

    Args:
        vectors: flat ones of one length.
    """
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors[0].device)
    for pieces in zip(*(torch.split(vector, _COLUMNS) for vector in vectors), strict=True):
        rows = torch.stack(pieces).double()
        total += rows @ rows.T
    return total
