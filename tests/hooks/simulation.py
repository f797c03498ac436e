"""One FedML simulation inside the test's process."""

from __future__ import annotations

from typing import Any

import fedml
import torch
from torch import Tensor, nn

from tiny import fedml_args, fedml_dataset, state_of, tiny_cnn


def simulate(model: nn.Module | None = None, dataset: list[Any] | None = None, **changes: Any) -> dict[str, Tensor]:
    """Run it as a user's script would; the final global model."""
    model = model or tiny_cnn()
    args = fedml.init(fedml_args(**changes))
    device = fedml.device.get_device(args)
    torch.manual_seed(0)
    dataset = dataset or fedml_dataset(args.client_num_in_total)
    runner = fedml.FedMLRunner(args, device, dataset, model)
    runner.run()
    return state_of(model)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
