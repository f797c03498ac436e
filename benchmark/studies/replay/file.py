"""The file of a replay set: the arrays of all rounds, and a description of the federation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.atomic_file import write_whole

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Replay:
    """The recorded rounds of one federation.

    Attributes:
        about: data, model, partition, seed and versions; `cases`: name, attack and fraction of attackers of each case.
        rounds: the arrays of each round by name; see `recorder.Recorder`.
    """

    about: dict[str, Any]
    rounds: Sequence[Arrays]


def save(path: Path, about: Mapping[str, Any], rounds: Sequence[Arrays]) -> None:
    """Write a replay set to a file that is complete or absent.

    Args:
        path: of the file, ending in .npz.
        about: the description of the federation; values that JSON can hold.
        rounds: the arrays of each round by name.
    """
    flat = {f"{number}/{name}": array for number, arrays in enumerate(rounds, 1) for name, array in arrays.items()}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # given a path, NumPy would append .npz
            np.savez_compressed(file, about=np.array(json.dumps({**about, "rounds": len(rounds)})), **flat)

    write_whole(path, write)


def load(path: Path) -> Replay:
    """Read a replay set that `save` wrote.

    Args:
        path: of the file.
    """
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        rounds = [
            {name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{number}/")}
            for number in range(1, about["rounds"] + 1)
        ]
    return Replay(about, rounds)
