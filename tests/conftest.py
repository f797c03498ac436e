from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae import Round
from tiny import digits, state_of, tiny_cnn


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in's log as in a program with logging of its own, whatever tests ran before: caplog hears it."""
    log = logging.getLogger("fedml_gradcam_ae")
    monkeypatch.setattr(log, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(log, "propagate", True)


@pytest.fixture(scope="session")
def make_round() -> Callable[..., Round]:
    """A Round of K uploads that differ from the global model by small random updates."""

    def make(clients: int = 6, network: nn.Module | None = None, **changes: Any) -> Round:
        network = (network or tiny_cnn()).eval()
        generator = torch.Generator().manual_seed(1)
        trained = dict(network.named_parameters())

        def upload() -> dict[str, Tensor]:
            return {
                name: (tensor + 0.05 * torch.randn(tensor.shape, generator=generator, dtype=torch.float32)).to(
                    tensor.dtype
                )
                if name in trained
                else tensor
                for name, tensor in state_of(network).items()
            }

        images, labels = digits()
        fields: dict[str, Any] = {
            "number": 1,
            "client_ids": list(range(100, 100 + clients)),
            "uploads": [upload() for _ in range(clients)],
            "samples": [10.0 + i for i in range(clients)],
            "global_model": state_of(network),
            "network": copy.deepcopy(network),
            "test_data": DataLoader(TensorDataset(images[:64], labels[:64]), batch_size=16),
        }
        return Round(**{**fields, **changes})

    return make
