"""Local training that was done before, from the same start on the same data, is not done again.

Runs of one seed have much of it in common: round 1, and every later round that two defenses, or one under two attacks,
let begin with the same model. What each training came to is kept in `trained/` of the results folder, under the hash
of everything that it depends on, until the command ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from fedml.simulation.sp.fedavg.client import Client
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmark.atomic_file import write_whole

if TYPE_CHECKING:
    from benchmark.config import Run

FOLDER = "trained"
WEIGHT, STATE = "weights.", "random_states."  # what names begin with in a file


class Memory:
    """What clients' trainings came to, in files that several processes share.

    Attributes:
        folder: where the files are.
        limit: bytes that they may take together; those that were asked for least recently go first.
        remembered: how many trainings were not done again.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.remembered = folder, limit, 0
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, Tensor] | None:
        """What was saved under this name."""
        path = self.folder / name
        try:
            found = safetensors.torch.load(path.read_bytes())
            _stamp(path)
        except (FileNotFoundError, safetensors.SafetensorError):  # never there, just removed by another process, torn
            return None
        self.remembered += 1
        return found

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Under its name when it is whole."""

        def write(path: Path) -> None:
            # Tied weights share memory, which the format refuses.
            safetensors.torch.save_file({key: t.detach().contiguous().clone() for key, t in tensors.items()}, path)
            _stamp(path)

        write_whole(self.folder / name, write)
        self._shrink()

    def _shrink(self) -> None:
        found = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat()
            except FileNotFoundError:  # another process shrinks as well
                continue
            found.append((facts.st_mtime_ns, facts.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            Path(path).unlink(missing_ok=True)
            total -= size


def _stamp(path: Path) -> None:
    """Used now: file systems by themselves count in milliseconds."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


@contextmanager
def remembering(run: Run, versions: Mapping[str, str], memory: Memory) -> Iterator[None]:
    """FedML's clients look up what they would come to before they train.

    Args:
        run: the simulation that runs meanwhile.
        versions: of what computes the results.
        memory: where to look.
    """
    stock = Client.train
    same = run.model_dump(include={"model", "federation", "threads"})
    always = json.dumps({**same, "versions": dict(versions)}, sort_keys=True).encode()

    def train(self: Any, start: Mapping[str, Tensor]) -> Any:
        name = _name(always, self.local_training_data, start)
        if name is None:
            return stock(self, start)
        found = memory.load(name)
        if found is None:
            weights = stock(self, start)
            memory.save(name, _prefixed(WEIGHT, weights) | _prefixed(STATE, dict(enumerate(_random_states()))))
            return weights
        states = _with_prefix(STATE, found)
        _set_random_states([states[str(number)] for number in range(len(states))])
        self.model_trainer.set_model_params(_with_prefix(WEIGHT, found))
        return self.model_trainer.get_model_params()

    Client.train = train
    try:
        yield
    finally:
        Client.train = stock


def _prefixed(prefix: str, tensors: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _name(always: bytes, data: Any, start: Mapping[str, Tensor]) -> str | None:
    """The hash of all that a training depends on; None for data that an attack stands before."""
    if not isinstance(data, DataLoader) or not isinstance(data.dataset, TensorDataset):
        return None
    batches = f"{data.batch_size} {data.drop_last} {type(data.sampler).__name__}"
    digest = hashlib.sha256(always + batches.encode())
    tensors: dict[Any, Tensor] = {
        **{f"random state {number}": state for number, state in enumerate(_random_states())},
        **dict(enumerate(data.dataset.tensors)),
        **start,
    }
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()


def _random_states() -> list[Tensor]:
    """PyTorch's, of the processor and of the GPU if one is in use: dropout draws from that of its device."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if in_use else [])]


def _set_random_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
