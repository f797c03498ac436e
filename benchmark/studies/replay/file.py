"""The file of a replay set: every round's arrays, and what they are of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Replay:
    """One federation.

    Attributes:
        about: data, model, partition, seed, versions; `cases`: a name, the attack and the share of attackers of each.
        rounds: see `recorder.Recorder`.
    """

    about: dict[str, Any]
    rounds: Sequence[Arrays]


def save(path: Path, about: Mapping[str, Any], rounds: Sequence[Arrays]) -> None:
    """The whole file or none of it."""
    flat = {f"{number}/{name}": array for number, arrays in enumerate(rounds, 1) for name, array in arrays.items()}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:  # a name would be given the ending of a whole file
        np.savez_compressed(file, about=np.array(json.dumps({**about, "rounds": len(rounds)})), **flat)
    os.replace(partial, path)


def load(path: Path) -> Replay:
    """What `save` has written."""
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        rounds = [
            {name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{number}/")}
            for number in range(1, about["rounds"] + 1)
        ]
    return Replay(about, rounds)
