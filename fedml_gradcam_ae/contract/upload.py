"""The types of client ids and uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

ClientId = int | str
Upload: TypeAlias = "Mapping[str, Tensor]"  # a state dict; quoted, so that this module does not import torch
