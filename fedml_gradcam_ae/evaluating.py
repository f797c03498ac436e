"""Running a network in eval mode and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode while the block runs, and afterward, also after an error, the mode of before."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
