"""A server's state on disk: always whole, however the process ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: how many rounds are done, the global model, and the defense's state."""

    rounds_done: int
    model: dict[str, Tensor]
    defense: dict[str, Any]


class Checkpoint:
    """One file in a folder, replaced in one step.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "server.pt"

    def save(self, rounds_done: int, model: Mapping[str, Tensor], defense: Mapping[str, Any]) -> None:
        """Write the state; until it is all on disk the previous one stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save({"rounds_done": rounds_done, "model": dict(model), "defense": dict(defense)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)

    def load(self) -> Saved | None:
        """The last state that was saved, or None."""
        if not self.path.exists():
            return None
        content = torch.load(self.path, weights_only=True)
        return Saved(content["rounds_done"], content["model"], content["defense"])
