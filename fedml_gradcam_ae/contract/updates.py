"""The updates u_i = w_i - w_g of a round's clients, a matrix of K rows that is never held in memory as a whole.

Rules that compare whole updates need only the inner products between them. Rules that work coordinate by coordinate
need only some columns at a time. Both read the uploads in blocks, so that they need less than a tenth of the uploads'
size in addition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from fedml_gradcam_ae.contract.upload import Upload

_LARGEST_BLOCK = 65_536  # the most columns of a block: K rows of them stay in a processor's cache
_SMALLEST_BLOCK = 4_096  # the fewest columns of a block
# Vectors with a smaller squared distance, as a fraction of the sum of their squared lengths, count as equal. It is the
# distance of vectors that differ by one step of float32 in every number.
_NEAREST = torch.finfo(torch.float32).eps ** 2 / 2
_SUM_TO_ONE = 1e-12  # rows of a mixing whose sum differs from 1 by less are means: the difference is rounding


class Updates:
    """K updates over the trainable parameters, d numbers each.

    Args:
        uploads: K state dicts.
        center: the state dict w_g that the updates are relative to.
        names: the trainable parameters, in the order of the d coordinates.
        mixing: (updates, uploads), rows with sum 1: the i-th update is the mean of the given ones with the weights of
            row i. None: the updates are the given ones.
        tied: names under which the network repeats a tensor, each with the parameter's own name. Models that are made
            here have one value under both.

    Example:
        >>> center = {"weight": torch.tensor([1.0, 1.0])}
        >>> uploads = [{"weight": torch.tensor(value)} for value in ([2.0, 1.0], [1.0, 4.0], [0.0, 1.0])]
        >>> updates = Updates(uploads, center, names=["weight"])
        >>> updates.gram
        tensor([[ 1.,  0., -1.],
                [ 0.,  9.,  0.],
                [-1.,  0.,  1.]], dtype=torch.float64)
        >>> updates.lengths()[:, 0].tolist(), updates.squared_distances[0].tolist()
        ([1.0, 3.0, 1.0], [0.0, 10.0, 4.0])
        >>> updates.dot({"weight": torch.tensor([1.0, 2.0])}).tolist(), updates.sample(torch.tensor([1]))[:, 0].tolist()
        ([1.0, 6.0, -1.0], [0.0, 3.0, 0.0])
        >>> [block.tolist() for block in updates.only([0, 2]).blocks()]
        [[[1.0, 0.0], [-1.0, 0.0]]]
        >>> updates.columnwise(lambda values: values.median(dim=0).values)
        {'weight': tensor([1., 1.])}
        >>> updates.combine(torch.tensor([0.0, 1 / 3, 0.0]))
        {'weight': tensor([1., 2.])}
        >>> updates.step(lambda block: block.amax(dim=0), weights=None)
        {'weight': tensor([2., 4.])}
        >>> mean, half = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.5, 0.0, 0.0]])
        >>> [block.tolist() for block in updates.mixed(torch.cat([mean, half])).blocks()]
        [[[0.5, 1.5], [0.5, 0.0]]]
        >>> updates.mixed(half).columnwise(lambda values: values[0])  # halfway from the center to the first upload
        {'weight': tensor([1.5000, 1.0000])}
    """

    def __init__(
        self,
        uploads: Sequence[Upload],
        center: Mapping[str, Tensor],
        names: Sequence[str],
        mixing: Tensor | None = None,
        tied: Mapping[str, str] | None = None,
    ) -> None:
        self.uploads, self.center, self.names, self.mixing = uploads, center, names, mixing
        self.tied = {} if tied is None else tied
        self.size = sum(center[name].numel() for name in names)

    def __len__(self) -> int:
        return len(self.uploads) if self.mixing is None else len(self.mixing)

    def only(self, positions: Sequence[int]) -> Updates:
        """Return some of the updates, in the order of `positions`.

        Args:
            positions: rows of the matrix.
        """
        chosen = list(positions)
        if self.mixing is not None:
            return Updates(self.uploads, self.center, self.names, self.mixing[chosen], self.tied)
        return Updates([self.uploads[i] for i in chosen], self.center, self.names, tied=self.tied)

    @cached_property
    def gram(self) -> Tensor:
        """The inner products <u_i, u_j>, (clients, clients), float64.

        Sums and products are in float64. The updates are centered at the global model, not at one of the uploads: with
        a poisoned upload as the center, rounding would swallow the digits of the others.
        """
        if self.mixing is not None:
            return self.mixing @ Updates(self.uploads, self.center, self.names).gram @ self.mixing.T
        device = self.center[self.names[0]].device
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=device)
        buffer = self._buffer()
        for name in self.names:
            for block, _ in self._updates_of(name, buffer):
                total.addmm_(block, block.T)
        return total

    def lengths(self) -> Tensor:
        """Return the length of each tensor's change, (clients, tensors), float64, on the CPU.

        A length is infinite where float64 overflows. The lengths are computed in float32 where the tensors are no
        wider, which takes half the time, and again in float64 where float32 overflows.
        """
        buffers: dict[torch.dtype, Tensor] = {}
        columns = [self._lengths_of(name, buffers) for name in self.names]
        found = torch.stack(columns, dim=1).cpu() if columns else torch.zeros(len(self), 0, dtype=torch.float64)
        for client, tensor in torch.nonzero(~found.isfinite()).tolist():
            name = self.names[tensor]
            change = self.uploads[client][name].double() - self.center[name].double()
            found[client, tensor] = torch.linalg.vector_norm(change)
        return found

    def _lengths_of(self, name: str, buffers: dict[torch.dtype, Tensor]) -> Tensor:
        """Return the lengths of one tensor's change, (clients,).

        Args:
            name: the tensor.
            buffers: buffers by type, which later calls reuse.
        """
        like = self.center[name]
        kind = torch.promote_types(like.dtype, torch.float32)
        total = torch.zeros(len(self), dtype=torch.float64, device=like.device)
        for values, center in self._pieces_of(name, any_order=True):
            shape, start = (len(values), center.numel()), center.to(kind)
            if kind not in buffers or buffers[kind].numel() < shape[0] * shape[1]:
                buffers[kind] = torch.empty(shape[0] * shape[1], dtype=kind, device=like.device)
            block = buffers[kind][: shape[0] * shape[1]].view(shape)
            for row, value in zip(block, values, strict=True):
                torch.sub(value, start, out=row)
            total += torch.linalg.vector_norm(block, dim=1).double().square()
        return total.sqrt()

    @property
    def squared_norms(self) -> Tensor:
        """The squared norms ||u_i||^2, (clients,), float64."""
        return self.gram.diagonal()

    @cached_property
    def squared_distances(self) -> Tensor:
        """The squared pairwise distances D_ij = ||u_i - u_j||^2, (clients, clients), float64, 0 on the diagonal."""
        return squared_distances(self.gram)

    def blocks(self, reuse_buffer: bool = False) -> Iterator[Tensor]:
        """Yield the columns of the updates in order, in blocks (clients, columns), float64.

        Args:
            reuse_buffer: if True, each block is valid until the next one and may be modified in place.
        """
        buffer = self._buffer() if reuse_buffer else None
        for name in self.names:
            for block, _ in self._updates_of(name, buffer):
                yield block

    def dot(self, vector: Mapping[str, Tensor]) -> Tensor:
        """Return the inner products <u_i, vector>, (clients,), float64.

        Args:
            vector: a tensor for each of `names`.
        """
        total = torch.zeros(len(self), dtype=torch.float64, device=self.center[self.names[0]].device)
        buffer = self._buffer()
        for name in self.names:
            start, flat = 0, vector[name].reshape(-1)
            for block, _ in self._updates_of(name, buffer):
                total += block @ flat[start : start + block.shape[1]].double()
                start += block.shape[1]
        return total

    def sample(self, columns: Tensor) -> Tensor:
        """Return some coordinates of every update.

        Args:
            columns: (columns,), ascending positions among the d coordinates.

        Returns:
            (clients, columns), float64.
        """
        columns = columns.to(self.center[self.names[0]].device)
        values = torch.empty(len(self.uploads) + 1, len(columns), dtype=torch.float64, device=columns.device)
        ends = torch.tensor([self.center[name].numel() for name in self.names], device=columns.device).cumsum(0)
        cuts = torch.searchsorted(columns, ends).tolist()
        for name, end, first, last in zip(self.names, ends.tolist(), [0, *cuts], cuts, strict=False):
            if first < last:
                rows = [*(upload[name] for upload in self.uploads), self.center[name]]
                here = columns[first:last] - (end - self.center[name].numel())
                for row, picked in zip(values, _pick(rows, here), strict=True):
                    row[first:last] = picked
        return self._mix(values[:-1]) - values[-1]

    def columnwise(self, rule: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return the model whose every number is `rule` of the uploads' numbers at its place.

        The rule is applied to all tensors, BatchNorm's statistics included: an average of these would let attackers
        bypass a robust rule.

        Args:
            rule: a function from (clients, columns) to (columns,). It must be equivariant to translation: if all values
                of a column shift, its result shifts by the same amount.
        """
        model = {}
        for name, like in self.center.items():
            if name in self.tied:
                continue
            pieces = [self._apply(rule, values) for values, _ in self._blocks_of(name)]
            joined = torch.cat(pieces).view(like.shape) if pieces else like.clone()
            model[name] = _as(joined, like)
        return self._complete(model)

    def combine(self, coefficients: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Return the model w_g + sum_i c_i u_i.

        Args:
            coefficients: (clients,), c.
            weights: (clients,), sum 1, the weights of the average over all other tensors (BatchNorm's statistics).
                None: the coefficients, scaled to the sum 1; where their sum is not positive, these tensors stay w_g's.
        """
        coefficients = coefficients.double()
        if weights is None:
            total = float(coefficients.sum())
            weights = coefficients / total if total > 0 else None
        return self.step(lambda block: coefficients @ block, weights)

    def step(self, rule: Callable[[Tensor], Tensor], weights: Tensor | None) -> dict[str, Tensor]:
        """Return the model w_g + `rule` of the updates, coordinate by coordinate.

        Args:
            rule: a function from (clients, columns) to (columns,), float64; unlike that of `columnwise`, it sees the
                updates and not the uploads. It may modify its argument in place.
            weights: (clients,), sum 1, the weights of the average over all other tensors (BatchNorm's statistics).
                None: these tensors stay w_g's.
        """
        if weights is not None and self.mixing is not None:
            weights = self.mixing.T @ weights.double()
        trained = set(self.names)
        rest = [name for name in self.center if name not in trained and name not in self.tied]
        model = dict(self.center) if weights is None else weighted_mean(self.uploads, weights.tolist(), rest)
        buffer = self._buffer()
        for name in self.names:
            blocks = self._updates_of(name, buffer)
            moved = torch.cat([center.double() + rule(block) for block, center in blocks])
            model[name] = _as(moved.view(self.center[name].shape), self.center[name])
        return self._complete(model)

    def mixed(self, mixing: Tensor) -> Updates:
        """Return the updates u'_i = sum_j M_ij u_j, without computing them: the mixing is done block by block.

        BatchNorm's statistics are mixed in the same way. Where a row does not sum to 1, the center has the rest of the
        weight, as a further upload whose update is 0. So a diagonal M scales updates about the center.

        Args:
            mixing: (updates, clients), M.
        """
        mixing = mixing.double()
        whole = mixing if self.mixing is None else mixing @ self.mixing
        uploads, rest = self.uploads, 1 - whole.sum(dim=1)
        if not all(sums_to_one(whole)):
            if uploads[-1] is not self.center:
                uploads = [*uploads, self.center]
                whole = torch.cat([whole, torch.zeros_like(whole[:, :1])], dim=1)
            whole = torch.cat([whole[:, :-1], whole[:, -1:] + rest[:, None]], dim=1)
        mixed = Updates(uploads, self.center, self.names, whole, self.tied)
        if "gram" in self.__dict__:  # computed already: saves a second pass over the uploads
            mixed.__dict__["gram"] = mixing @ self.gram @ mixing.T
        return mixed

    def recentered(self, center: Mapping[str, Tensor]) -> Updates:
        """Return the updates of the same uploads relative to another model.

        Args:
            center: the state dict of the other model.
        """
        return Updates(self.uploads, center, self.names, self.mixing, self.tied)

    def _complete(self, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the model in the center's order, tied names with their parameter's value."""
        return {name: model[self.tied.get(name, name)] for name in self.center}

    def _apply(self, rule: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Return the rule's result for a block, computed in float64 where its sum overflows in the block's own type."""
        if not values.is_floating_point() or values.dtype == torch.float64:
            return rule(self._mix(values.double()))
        answer = rule(self._mix(values))
        return answer if bool(answer.sum().isfinite()) else rule(self._mix(values.double()))

    def _mix(self, values: Tensor) -> Tensor:
        return values if self.mixing is None else self.mixing.to(values.dtype) @ values

    def _updates_of(self, name: str, buffer: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of the updates, (clients, columns), float64, each with the center's numbers, (columns,).

        Args:
            name: the tensor.
            buffer: memory that each block overwrites, since new memory costs more time than the arithmetic; None: each
                block has memory of its own.
        """
        for values, center in self._pieces_of(name):
            shape, start = (len(values), center.numel()), center.double()
            needed = shape[0] * shape[1]
            if buffer is not None and needed <= buffer.numel():
                block = buffer[:needed].view(shape)
            else:
                block = torch.empty(shape, dtype=torch.float64, device=center.device)
            for row, value in zip(block, values, strict=True):
                torch.sub(value, start, out=row)
            yield self._mix(block), center

    def _buffer(self) -> Tensor:
        """Return a buffer for the largest block."""
        device = self.center[self.names[0]].device
        return torch.empty(len(self.uploads) * self._columns, dtype=torch.float64, device=device)

    @property
    def _columns(self) -> int:
        """The width of a block, such that a few blocks take at most a tenth of the uploads' size."""
        return max(_SMALLEST_BLOCK, min(_LARGEST_BLOCK, self.size // 80))

    def _blocks_of(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of the uploads, (clients, columns), and of the center, (columns,), in their own types."""
        for values, center in self._pieces_of(name):
            yield torch.stack(values), center

    def _pieces_of(self, name: str, any_order: bool = False) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield pieces of the uploads, (columns,) each, and of the center, in their own types.

        Args:
            name: the tensor.
            any_order: if True, columns may come in the order of memory, which avoids copies of channels_last tensors.
        """
        rows = [upload[name] for upload in self.uploads] + [self.center[name]]
        steps = rows[0].stride()
        if any_order and all(row.stride() == steps for row in rows):
            outermost_first = sorted(range(len(steps)), key=lambda dim: -steps[dim])
            rows = [row.permute(outermost_first) for row in rows]
        if all(row.is_contiguous() for row in rows) or rows[0].dim() < 2:
            pieces = [torch.split(row.reshape(-1), self._columns) for row in rows]
        else:  # channels_last, for example: to flatten the whole tensor would copy it
            step = max(1, self._columns // max(1, rows[0][0].numel()))
            pieces = [torch.split(row, step) for row in rows]
        for *values, center in zip(*pieces, strict=True):
            yield [value.reshape(-1) for value in values], center.reshape(-1)


class Mixture(Mapping[str, Tensor]):
    """The weighted mean of uploads as an upload; a tensor is computed when it is read.

    Args:
        uploads: state dicts.
        weights: one per upload, sum 1.

    Example:
        >>> mixture = Mixture([{"bias": torch.tensor([0.0])}, {"bias": torch.tensor([4.0])}], [0.75, 0.25])
        >>> dict(mixture)
        {'bias': tensor([1.])}
    """

    def __init__(self, uploads: Sequence[Upload], weights: Sequence[float]) -> None:
        parts = [(upload, weight) for upload, weight in zip(uploads, weights, strict=True) if weight]
        self.uploads, self.weights = [upload for upload, _ in parts], [weight for _, weight in parts]
        self._names = list(uploads[0])

    @override
    def __getitem__(self, name: str) -> Tensor:
        return weighted_mean(self.uploads, self.weights, [name])[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @override
    def __len__(self) -> int:
        return len(self._names)


def sums_to_one(mixing: Tensor) -> list[bool]:
    """Return for each row whether its sum is 1, up to rounding.

    Args:
        mixing: (updates, clients).

    Example:
        >>> sums_to_one(torch.tensor([[0.5, 0.5], [0.5, 0.0]]))
        [True, False]
    """
    return ((1 - mixing.double().sum(dim=1)).abs() <= _SUM_TO_ONE).tolist()


def squared_distances(gram: Tensor) -> Tensor:
    """Return the squared distances ||x_i - x_j||^2 for the inner products <x_i, x_j>.

    Vectors that are nearer than one step of float32 in every number count as equal, with the distance 0. For equal
    vectors the inner products may differ, since some processors round them differently.

    Args:
        gram: (vectors, vectors), the inner products.

    Returns:
        (vectors, vectors), symmetric, exactly 0 on the diagonal and for equal vectors.

    Example:
        >>> vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
        >>> squared_distances(vectors @ vectors.T)
        tensor([[ 0., 25., 25.],
                [25.,  0.,  0.],
                [25.,  0.,  0.]])
    """
    squares = gram.diagonal()
    both = squares[:, None] + squares
    found = both - (gram + gram.T)
    return found.masked_fill(found < _NEAREST * both, 0).fill_diagonal_(0)


def weighted_mean(
    uploads: Sequence[Upload], weights: Sequence[float], names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Return the mean sum_i p_i w_i (6), summed in float64; whole numbers are rounded.

    Args:
        uploads: state dicts.
        weights: one per upload, sum 1.
        names: the tensors to average; None: all.

    Example:
        >>> weighted_mean([{"bias": torch.tensor([0.0])}, {"bias": torch.tensor([4.0])}], [0.75, 0.25])
        {'bias': tensor([1.])}
    """
    mean = {}
    for name in uploads[0] if names is None else names:
        like = uploads[0][name]
        total = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        for upload, weight in zip(uploads, weights, strict=True):
            if weight:
                total.add_(upload[name], alpha=weight)  # sums in float64, without a float64 copy of the upload
        mean[name] = _as(total, like)
    return mean


def flatten(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Return the named tensors one after the other, (d,).

    Args:
        tensors: tensors by name.
        names: their order.

    Example:
        >>> flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}, ["weight", "bias"])
        tensor([1., 2., 3.])
    """
    return torch.cat([tensors[name].reshape(-1) for name in names])


def model_length(model: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """Return the Euclidean length of some tensors of a model taken together, in float64.

    Args:
        model: a state dict.
        names: the tensors.

    Example:
        >>> model_length({"weight": torch.tensor([[3.0]]), "bias": torch.tensor([4.0])}, ["weight", "bias"])
        5.0
    """
    return math.hypot(*(float(torch.linalg.vector_norm(model[name].double())) for name in names))


def unflatten(vector: Tensor, like: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the named tensors in a vector, as views: the inverse of `flatten`.

    Args:
        vector: (d,).
        like: tensors of the wanted shapes by name.
        names: their order.

    Example:
        >>> like = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
        >>> unflatten(torch.tensor([1.0, 2.0, 3.0]), like, ["weight", "bias"])
        {'weight': tensor([[1., 2.]]), 'bias': tensor([3.])}
    """
    pieces = torch.split(vector, [like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def is_whole(value: object) -> bool:
    """Return whether a value is a tensor of whole numbers or truth values, which training does not change.

    Args:
        value: anything.

    Example:
        >>> is_whole(torch.tensor(3)), is_whole(torch.tensor(3.0)), is_whole(3)
        (True, False, False)
    """
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def _as(values: Tensor, like: Tensor) -> Tensor:
    """Return values in the type of another tensor: rounded for whole numbers, else clamped to the type's range."""
    if not like.is_floating_point():
        return values.round().to(like.dtype)
    found = values.to(like.dtype)
    if found.dtype == values.dtype or bool(found.sum().isfinite()):
        return found
    largest = torch.finfo(like.dtype).max
    return values.clamp(-largest, largest).to(like.dtype)


def _pick(tensors: Sequence[Tensor], positions: Tensor) -> Iterator[Tensor]:
    """Yield single numbers of each tensor, by their position in row-major order, without flattening the tensor.

    Args:
        tensors: of one shape, perhaps with different strides.
        positions: (numbers,), at least one.
    """
    places: dict[tuple[int, ...], Tensor] = {}
    for tensor in tensors:
        steps = tensor.stride()
        if steps not in places:
            where = torch.unravel_index(positions, tensor.shape) if steps else ()
            offsets = (index * step for index, step in zip(where, steps, strict=True))
            places[steps] = sum(offsets, start=torch.zeros_like(positions))
        extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=True))
        yield tensor.as_strided((extent,), (1,)).index_select(0, places[steps])
