"""The names of what clients send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

ClientId = int | str
Upload: TypeAlias = "Mapping[str, Tensor]"  # a state dict; quoted, since this module does not wait for torch
