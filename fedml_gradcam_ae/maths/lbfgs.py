"""The product of an approximate Hessian with a vector, from the last steps of an optimization.

Source: Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in limited memory methods",
Mathematical Programming 1994, Theorem 2.3, as FLDetector (arXiv 2207.09209) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_COLUMNS = 65_536  # numbers of each vector that `inner_products` converts to float64 at a time


def lbfgs_product(steps: Tensor, changes: Tensor, vector: Tensor) -> Tensor:
    """Return B v, where B is the BFGS matrix of the pairs (s_j, y_j), the oldest first.

    Args:
        steps: (pairs, d), S, the steps of the point.
        changes: (pairs, d), Y, the change of the gradient in each step.
        vector: (d,), v.

    Returns:
        (d,), float64.

    Example:
        A quadratic function with the Hessian 2 I has changes twice as long as the steps:

        >>> lbfgs_product(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([1.0, 1.0]))
        tensor([2., 2.], dtype=torch.float64)
    """
    basis = [*steps, *changes, vector]
    last = torch.zeros(len(basis), 1, dtype=torch.float64)
    last[-1] = 1
    coefficients = lbfgs_coefficients(inner_products(basis), len(steps), last)[:, 0]
    return coefficients.to(vector.device) @ torch.stack(basis).double()


def lbfgs_coefficients(gram: Tensor, pairs: int, vectors: Tensor) -> Tensor:
    """Return B v as `lbfgs_product` does, for vectors v that are combinations of the rows of [S; Y; other rows].

    B v = sigma v - [sigma S^T, Y^T] [[sigma S S^T, L], [L^T, -D]]^-1 [sigma S v; Y v], with sigma = s_n.y_n / s_n.s_n
    of the newest pair, L the strictly lower part of S Y^T and D its diagonal. The computation needs only the Gram
    matrix of the rows, never the rows themselves. B changes its sign with Y, so updates may take the place of
    gradients.

    Args:
        gram: (rows, rows), inner products of all rows, those of S and Y first.
        pairs: the number of pairs, at least 1.
        vectors: (rows, vectors), each column the coefficients of one v.

    Returns:
        (rows, vectors), the coefficients of each B v; all 0 if the newest pair has no curvature, if a step is 0, or if
        the arithmetic overflows.
    """
    gram, vectors = gram.double().cpu(), vectors.double().cpu()
    nothing = torch.zeros_like(vectors)
    if not bool(torch.isfinite(gram).all()):
        return nothing
    # To scale a pair does not change B, and to divide Y by sigma only scales B. So all blocks get entries around 1.
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
    # Linearly dependent steps make the matrix singular. The pseudo-inverse then gives the shortest solution.
    solved = torch.linalg.pinv(middle, rtol=1e-12) @ products
    result = vectors.clone()
    result[: 2 * pairs] -= scale[: 2 * pairs, None] * solved
    result *= sigma
    return result if bool(torch.isfinite(result).all()) else nothing


def inner_products(vectors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of vectors, (vectors, vectors), float64, summed block by block.

    Args:
        vectors: (d,) each, at least one.

    Example:
        >>> inner_products([torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0])])
        tensor([[5., 6.],
                [6., 9.]], dtype=torch.float64)
    """
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors[0].device)
    for pieces in zip(*(torch.split(vector, _COLUMNS) for vector in vectors), strict=True):
        rows = torch.stack(pieces).double()
        total += rows @ rows.T
    return total
