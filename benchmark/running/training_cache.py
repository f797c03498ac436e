"""A cache of local training: the same training from the same weights on the same data is not repeated.

Runs of one seed have many trainings in common: those of round 1, and those of every later round that starts from the
same global model, under two defenses, or under two attacks with one defense. The result of each training is kept in
`trained/` of the results folder until the command ends. The file name is a hash of everything that the result depends
on.
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

# The folder of the cache inside the results folder.
FOLDER = "trained"
WEIGHT, STATE = "weights.", "random_states."  # prefixes of tensor names in a file


class Memory:
    """Results of local training, in files that several processes share.

    Args:
        folder: where the files are; it is created if necessary.
        limit: the maximum size of all files together (bytes); the least recently used files are deleted first.

    Attributes:
        folder: where the files are.
        limit: the maximum size of all files together (bytes).
        remembered: the number of trainings that were read instead of repeated.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.remembered = folder, limit, 0
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors that were saved under a name; None if there are none or the file is damaged.

        Args:
            name: of the file.
        """
        path = self.folder / name
        try:
            found = safetensors.torch.load(path.read_bytes())
            _stamp(path)
        except (FileNotFoundError, safetensors.SafetensorError):  # not there, just deleted, or damaged
            return None
        self.remembered += 1
        return found

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Save tensors, and delete old files if all together are too large.

        Args:
            name: of the file, which appears only when it is complete.
            tensors: by name.
        """

        def write(path: Path) -> None:
            # Tied weights share memory, which safetensors rejects.
            safetensors.torch.save_file({key: t.detach().contiguous().clone() for key, t in tensors.items()}, path)
            _stamp(path)

        write_whole(self.folder / name, write)
        self._shrink()

    def _shrink(self) -> None:
        found = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat()
            except FileNotFoundError:  # another process deletes files as well
                continue
            found.append((facts.st_mtime_ns, facts.st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            Path(path).unlink(missing_ok=True)
            total -= size


def _stamp(path: Path) -> None:
    """Set the file's time of last use to now, in nanoseconds: file systems by themselves use milliseconds."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


@contextmanager
def remembering(run: Run, versions: Mapping[str, str], memory: Memory) -> Iterator[None]:
    """Make FedML's clients look up their training in the cache while the block runs.

    Args:
        run: the simulation that runs in the block.
        versions: of all packages that results depend on.
        memory: the cache.
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
    """Return a hash of everything that a training depends on.

    Data that an attack has replaced are not cached: None.
    """
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
    """Return PyTorch's random states: the CPU's, and a used GPU's, since dropout draws on the device it runs on."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if in_use else [])]


def _set_random_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
