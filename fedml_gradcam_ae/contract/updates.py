"""The updates u_i = w_i - w_g of a round's clients as a matrix of K rows that is never held as a whole.

Rules that compare whole updates need no more than the inner products between them; rules that work coordinate by
coordinate need no more than some columns at a time. Both read the uploads in blocks, so that next to the uploads
themselves less than a tenth of their size is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from fedml_gradcam_ae.contract.upload import Upload

_LARGEST_BLOCK = 65_536  # columns: K rows of them stay in a processor's cache
_SMALLEST_BLOCK = 4_096
_NEAREST = torch.finfo(torch.float32).eps ** 2 / 2  # of both squared lengths: a step of float32 in every number


class Updates:
    """K updates over the trainable parameters, d numbers each.

    Args:
        uploads: K state dicts.
        center: the state dict w_g that they are relative to.
        names: the tensors that count, those of the trainable parameters.
        mixing: (updates, uploads), rows that sum to one: row i makes the i-th update a mean of the given ones.
        tied: names under which the network has one of its tensors again, each with the parameter's own name. Models
            that are made here have one value under both.
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
        """Return some of the updates, in the order of `positions`."""
        chosen = list(positions)
        if self.mixing is not None:
            return Updates(self.uploads, self.center, self.names, self.mixing[chosen], self.tied)
        return Updates([self.uploads[i] for i in chosen], self.center, self.names, tied=self.tied)

    def of(self, uploads: Sequence[Upload]) -> Updates:
        """Return the same updates, mixed in the same way, made from other uploads."""
        return Updates(uploads, self.center, self.names, self.mixing, self.tied)

    @cached_property
    def gram(self) -> Tensor:
        """The inner products <u_i, u_j>, (clients, clients), float64.

        Sums and products are in float64. The updates are centered at the global model, not at one of the uploads:
        a poisoned upload as the center would drown the others' digits.
        """
        if self.mixing is not None:
            return self.mixing @ Updates(self.uploads, self.center, self.names).gram @ self.mixing.T
        device = self.center[self.names[0]].device
        total = torch.zeros(len(self), len(self), dtype=torch.float64, device=device)
        room = self._room()
        for name in self.names:
            for block, _ in self._updates_of(name, room):
                total.addmm_(block, block.T)
        return total

    def lengths(self) -> Tensor:
        """The length of each tensor's change, (clients, tensors), float64, on the CPU; infinite where that overflows.

        In float32 where the tensors are no wider, which takes half the time, and again in float64 where it overflows.
        """
        rooms: dict[torch.dtype, Tensor] = {}
        columns = [self._lengths_of(name, rooms) for name in self.names]
        found = torch.stack(columns, dim=1).cpu() if columns else torch.zeros(len(self), 0, dtype=torch.float64)
        for client, tensor in torch.nonzero(~found.isfinite()).tolist():
            name = self.names[tensor]
            change = self.uploads[client][name].double() - self.center[name].double()
            found[client, tensor] = torch.linalg.vector_norm(change)
        return found

    def _lengths_of(self, name: str, rooms: dict[torch.dtype, Tensor]) -> Tensor:
        """The lengths of one tensor's change, (clients,); `rooms` keeps memory for the tensors that follow."""
        like = self.center[name]
        kind = torch.promote_types(like.dtype, torch.float32)
        total = torch.zeros(len(self), dtype=torch.float64, device=like.device)
        for values, center in self._pieces_of(name, any_order=True):
            shape, start = (len(values), center.numel()), center.to(kind)
            if kind not in rooms or rooms[kind].numel() < shape[0] * shape[1]:
                rooms[kind] = torch.empty(shape[0] * shape[1], dtype=kind, device=like.device)
            block = rooms[kind][: shape[0] * shape[1]].view(shape)
            for row, value in zip(block, values, strict=True):
                torch.sub(value, start, out=row)
            total += torch.linalg.vector_norm(block, dim=1).double().square()
        return total.sqrt()

    @property
    def squared_norms(self) -> Tensor:
        """||u_i||^2, (clients,), float64."""
        return self.gram.diagonal()

    @cached_property
    def squared_distances(self) -> Tensor:
        """D_ij = ||u_i - u_j||^2, (clients, clients), float64, exactly 0 on the diagonal."""
        return squared_distances(self.gram)

    def blocks(self, fleeting: bool = False) -> Iterator[Tensor]:
        """The updates' columns in order, (clients, columns) at a time, float64.

        Args:
            fleeting: each block may overwrite the one before it, and may be overwritten.
        """
        room = self._room() if fleeting else None
        for name in self.names:
            for block, _ in self._updates_of(name, room):
                yield block

    def dot(self, vector: Mapping[str, Tensor]) -> Tensor:
        """The inner products <u_i, vector>, (clients,), float64."""
        total = torch.zeros(len(self), dtype=torch.float64, device=self.center[self.names[0]].device)
        room = self._room()
        for name in self.names:
            start, flat = 0, vector[name].reshape(-1)
            for block, _ in self._updates_of(name, room):
                total += block @ flat[start : start + block.shape[1]].double()
                start += block.shape[1]
        return total

    def sample(self, columns: Tensor) -> Tensor:
        """Some coordinates of every update.

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
        """The model whose every number is `rule` of the uploads' numbers at its place.

        All tensors count, BatchNorm's statistics included: averaged, they would be an open door beside a robust rule.

        Args:
            rule: from (clients, columns) to (columns,); if all clients' values shift, its answer has to shift along.
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
        """The model w_g + sum_i c_i u_i.

        Args:
            coefficients: (clients,), c.
            weights: (clients,), sum 1, with which the tensors that are no trainable parameters (BatchNorm's
                statistics) are averaged; None: as the coefficients, scaled to the sum 1, or w_g's if they are 0.
        """
        coefficients = coefficients.double()
        if weights is None:
            total = float(coefficients.sum())
            weights = coefficients / total if total > 0 else None
        if weights is not None and self.mixing is not None:
            weights = self.mixing.T @ weights.double()
        trained = set(self.names)
        rest = [name for name in self.center if name not in trained and name not in self.tied]
        model = dict(self.center) if weights is None else weighted_mean(self.uploads, weights.tolist(), rest)
        room = self._room()
        for name in self.names:
            blocks = self._updates_of(name, room)
            moved = torch.cat([center.double() + coefficients @ block for block, center in blocks])
            model[name] = _as(moved.view(self.center[name].shape), self.center[name])
        return self._complete(model)

    def mixed(self, mixing: Tensor) -> Updates:
        """The updates u'_i = sum_j M_ij u_j, which cost nothing to make: the mixing is done block by block."""
        mixing = mixing.double()
        whole = mixing if self.mixing is None else mixing @ self.mixing
        mixed = Updates(self.uploads, self.center, self.names, whole, self.tied)
        if "gram" in self.__dict__:  # known already: no second pass over the uploads
            mixed.__dict__["gram"] = mixing @ self.gram @ mixing.T
        return mixed

    def recentered(self, center: Mapping[str, Tensor]) -> Updates:
        """The same uploads relative to another model."""
        return Updates(self.uploads, center, self.names, self.mixing, self.tied)

    def _complete(self, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model in the center's order, tied names with their parameter's value."""
        return {name: model[self.tied.get(name, name)] for name in self.center}

    def _apply(self, rule: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """The rule's answer for a block; in float64 where a sum of large numbers leaves the range of their type."""
        if not values.is_floating_point() or values.dtype == torch.float64:
            return rule(self._mix(values.double()))
        answer = rule(self._mix(values))
        return answer if bool(answer.sum().isfinite()) else rule(self._mix(values.double()))

    def _mix(self, values: Tensor) -> Tensor:
        return values if self.mixing is None else self.mixing.to(values.dtype) @ values

    def _updates_of(self, name: str, room: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of (clients, columns) of the updates, float64, and (columns,) of the center.

        Args:
            name: of the tensor.
            room: where given, each block overwrites the one before it: fresh memory costs more than the arithmetic.
        """
        for values, center in self._pieces_of(name):
            shape, start = (len(values), center.numel()), center.double()
            needed = shape[0] * shape[1]
            if room is not None and needed <= room.numel():
                block = room[:needed].view(shape)
            else:
                block = torch.empty(shape, dtype=torch.float64, device=center.device)
            for row, value in zip(block, values, strict=True):
                torch.sub(value, start, out=row)
            yield self._mix(block), center

    def _room(self) -> Tensor:
        """Memory for the largest block."""
        device = self.center[self.names[0]].device
        return torch.empty(len(self.uploads) * self._columns, dtype=torch.float64, device=device)

    @property
    def _columns(self) -> int:
        """The width of a block: a tenth of the uploads' size is all that a few blocks may take."""
        return max(_SMALLEST_BLOCK, min(_LARGEST_BLOCK, self.size // 80))

    def _blocks_of(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of (clients, columns) of the uploads and (columns,) of the center, in their own dtype."""
        for values, center in self._pieces_of(name):
            yield torch.stack(values), center

    def _pieces_of(self, name: str, any_order: bool = False) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The uploads' pieces, (columns,) each, and the center's, in their own dtype.

        Args:
            name: of the tensor.
            any_order: whether the columns may come as they lie in memory, which saves copying those of channels_last.
        """
        rows = [upload[name] for upload in self.uploads] + [self.center[name]]
        steps = rows[0].stride()
        if any_order and all(row.stride() == steps for row in rows):
            outermost_first = sorted(range(len(steps)), key=lambda dim: -steps[dim])
            rows = [row.permute(outermost_first) for row in rows]
        if all(row.is_contiguous() for row in rows) or rows[0].dim() < 2:
            pieces = [torch.split(row.reshape(-1), self._columns) for row in rows]
        else:  # channels_last, say: flattening it whole would be a copy
            step = max(1, self._columns // max(1, rows[0][0].numel()))
            pieces = [torch.split(row, step) for row in rows]
        for *values, center in zip(*pieces, strict=True):
            yield [value.reshape(-1) for value in values], center.reshape(-1)


def squared_distances(gram: Tensor) -> Tensor:
    """||x_i - x_j||^2 of the inner products <x_i, x_j>, (vectors, vectors), symmetric, exactly 0 on the diagonal.

    And exactly 0 for equal vectors, whose inner products some processors round differently: what is nearer than one
    step of float32 in every number counts as equal.
    """
    squares = gram.diagonal()
    both = squares[:, None] + squares
    found = both - (gram + gram.T)
    return found.masked_fill(found < _NEAREST * both, 0).fill_diagonal_(0)


def weighted_mean(
    uploads: Sequence[Upload], weights: Sequence[float], names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """sum_i p_i w_i (6), summed in float64; whole numbers are rounded.

    Args:
        uploads: state dicts.
        weights: one per upload, sum 1.
        names: which tensors; None: all.
    """
    mean = {}
    for name in uploads[0] if names is None else names:
        like = uploads[0][name]
        total = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        for upload, weight in zip(uploads, weights, strict=True):
            if weight:
                total.add_(upload[name], alpha=weight)  # in float64, without a copy in it
        mean[name] = _as(total, like)
    return mean


def flatten(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """(d,): the named tensors one after the other."""
    return torch.cat([tensors[name].reshape(-1) for name in names])


def unflatten(vector: Tensor, like: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The inverse of `flatten`, as views."""
    pieces = torch.split(vector, [like[name].numel() for name in names])
    return {name: piece.view(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def is_whole(value: object) -> bool:
    """Whether a value is a tensor of whole numbers (or of truth values), which no training moves."""
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def _as(values: Tensor, like: Tensor) -> Tensor:
    """In the type of another tensor: whole numbers rounded, and nothing beyond the largest number of that type."""
    if not like.is_floating_point():
        return values.round().to(like.dtype)
    found = values.to(like.dtype)
    if found.dtype == values.dtype or bool(found.sum().isfinite()):
        return found
    largest = torch.finfo(like.dtype).max
    return values.clamp(-largest, largest).to(like.dtype)


def _pick(tensors: Sequence[Tensor], positions: Tensor) -> Iterator[Tensor]:
    """Single numbers of each of the tensors, by their position in row-major order, flattening none.

    Args:
        tensors: of one shape, but in memory they may lie differently.
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
