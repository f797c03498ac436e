"""Rounds made of plain matrices, awkward rounds, and what every verdict has to keep to."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae import Round, Verdict
from fedml_gradcam_ae.hooks.cross_silo.checkpoint import Checkpoint, Owner
from tiny import digits, state_of, tiny_cnn


def matrix(round: Round) -> np.ndarray:
    """The updates of the trainable parameters, (clients, d), written out."""
    names = [name for name, _ in round.network.named_parameters()]
    return np.array(
        [
            np.concatenate([(upload[n].double() - round.global_model[n].double()).numpy().ravel() for n in names])
            for upload in round.uploads
        ]
    )


def vector(round: Round, model) -> np.ndarray:
    """A model relative to the global one, (d,), over the trainable parameters."""
    return matrix(replace(round, client_ids=[0], uploads=[model], samples=[1.0]))[0]


def round_of(
    rows: np.ndarray,
    network: nn.Module,
    center=None,
    number: int = 1,
    client_ids: Sequence[int | str] | None = None,
    samples: Sequence[float] | None = None,
) -> Round:
    """A round whose updates are the rows of a matrix, (clients, d)."""
    center = center or state_of(network)
    names = [name for name, _ in network.named_parameters()]
    uploads = []
    for row in np.asarray(rows):
        upload, start = dict(center), 0
        for name in names:
            size = center[name].numel()
            piece = torch.tensor(row[start : start + size]).view(center[name].shape)
            upload[name] = (center[name].double() + piece).to(center[name].dtype)
            start += size
        uploads.append(upload)
    images, labels = digits()
    return Round(
        number=number,
        client_ids=list(client_ids or range(len(uploads))),
        uploads=uploads,
        samples=list(samples or [1.0] * len(uploads)),
        global_model=center,
        network=network,
        test_data=DataLoader(TensorDataset(images[:64], labels[:64]), batch_size=16),
        largest_step=None,  # the rules as their papers have them; tests/test_bounding.py has the bound
    )


def moved(model, verdict: Verdict, round: Round):
    """The global model after a verdict, as FedML would make it."""
    if verdict.model is not None:
        return verdict.model
    if not any(verdict.weights):
        return model
    return {
        name: sum(w * u[name].double() for w, u in zip(verdict.weights, round.uploads, strict=True)).to(tensor.dtype)
        for name, tensor in model.items()
    }


def check_verdict(verdict: Verdict, round: Round) -> None:
    """What holds for every verdict of every rule."""
    clients = len(round.uploads)
    if verdict.model is None:
        assert len(verdict.weights) == clients
        assert all(math.isfinite(w) and w >= 0 for w in verdict.weights)
        assert not any(verdict.weights) or math.isclose(sum(verdict.weights), 1)
        for weight, out in zip(verdict.weights, verdict.excluded, strict=True):
            assert (weight == 0) == out
    else:
        assert list(verdict.model) == list(round.global_model)
        for name, like in round.global_model.items():
            found = verdict.model[name]
            assert found.shape == like.shape
            assert found.dtype == like.dtype
            assert torch.isfinite(found).all(), name
        assert not all(verdict.excluded)
    assert len(verdict.flagged) == len(verdict.excluded) == len(verdict.scores) == clients
    assert not any(math.isnan(score) for score in verdict.scores)
    if verdict.threshold is not None:
        for score, flag in zip(verdict.scores, verdict.flagged, strict=True):
            assert flag or score <= verdict.threshold


def awkward_rounds(make_round: Callable[..., Round]) -> Iterator[tuple[str, Round]]:
    """Rounds in a row that a server may meet, with what is awkward about each."""

    def of(clients: int, change: Callable[[int, torch.Tensor], torch.Tensor], **fields: Any) -> Round:
        round = make_round(clients, **fields)
        trained = set(round.parameters)
        uploads = [
            {name: round.global_model[name] + change(i, t - round.global_model[name]) if name in trained else t
             for name, t in upload.items()}
            for i, upload in enumerate(round.uploads)
        ]  # fmt: skip
        return replace(round, uploads=uploads)

    first = make_round(6)
    yield "as usual", first
    yield "one client", of(1, lambda i, u: u)
    yield "two clients", of(2, lambda i, u: u)
    yield "two opposite clients", of(2, lambda i, u: torch.full_like(u, 0.1 - 0.2 * i))
    yield "an odd number", of(5, lambda i, u: u)
    yield "all updates zero", of(6, lambda i, u: 0 * u)
    yield "one update zero", of(6, lambda i, u: u * (i > 0))
    yield "one update not zero", of(6, lambda i, u: u * (i == 0))
    yield "all identical", replace(first, uploads=[first.uploads[0]] * 6)
    yield "three identical", replace(first, uploads=[first.uploads[0]] * 3 + list(first.uploads[3:]))
    yield "two groups of one size", replace(first, uploads=[first.uploads[0]] * 3 + [first.uploads[1]] * 3)
    yield "one of size 1e30", of(6, lambda i, u: u * (1e30 if i == 2 else 1))
    yield "all but one of size 1e30", of(6, lambda i, u: u * (1e30 if i else 1))
    yield "all of size 1e30", of(6, lambda i, u: u * 1e30)
    yield "one tiny", of(6, lambda i, u: u * (1e-30 if i == 2 else 1))
    yield "new clients", of(4, lambda i, u: u, client_ids=["a", "b", 103, 7])
    yield "claims", of(3, lambda i, u: u, samples=[1e-9, 1e15, 3.0])
    yield "others rejected", replace(make_round(3), rejected={104: "NaN", 105: "NaN"})
    yield "as usual again", make_round(6)


def awkward_double_rounds(make_round: Callable[..., Round]) -> Iterator[tuple[str, Round]]:
    """The same in float64."""
    for what, round in awkward_rounds(lambda *args, **fields: make_round(*args, network=tiny_cnn().double(), **fields)):
        yield f"{what}, float64", round


def check_awkward(build: Callable[[], Any], make_round: Callable[..., Round]) -> None:
    """One server that meets all of them in turn, and one that starts with each."""
    for rounds in (awkward_rounds, awkward_double_rounds):
        through = build()
        for number, (what, round) in enumerate(rounds(make_round), 1):
            for defense in (through, build()):
                now = replace(round, number=number)
                try:
                    check_verdict(defense.judge(now), now)
                except Exception as error:
                    raise AssertionError(f"{what}, {'in turn' if defense is through else 'at once'}") from error


def check_restart(build: Callable[[], Any], rounds: Sequence[Round], after: int) -> None:
    """A server that goes on from a saved state, on disk or in memory, judges later rounds as one that ran through."""
    through, fresh, from_disk, from_memory = build(), build(), build(), build()
    for round in rounds[:after]:
        through.judge(round)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(folder, Owner(rounds=after, defense={}))
        checkpoint.save(after, {}, through.state())
        saved = checkpoint.load({})
    assert saved is not None
    from_disk.restore(saved.defense)
    from_memory.restore(through.state())
    for round in rounds[after:]:
        expected, unlike = through.judge(round), fresh.judge(round)
        for found in (from_disk.judge(round), from_memory.judge(round)):
            assert found.scores == expected.scores
            assert found.weights == expected.weights
            assert found.excluded == expected.excluded
            assert found.reasons == expected.reasons
    assert unlike.scores != expected.scores  # or there was nothing to restore
