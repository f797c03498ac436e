"""A tiny federation on real digits: small enough for every test to run one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def tiny_cnn(channels: int = 4) -> nn.Module:
    """For 8 x 8 digits; its last maps are 8 x 8."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, 10),
    )


def digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    return torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def fedml_args(**changes: Any) -> SimpleNamespace:
    """The least that FedML's simulator needs, and what a test changes."""
    defaults = {
        "training_type": "simulation",
        "backend": "sp",
        "federated_optimizer": "FedAvg",
        "dataset": "digits",
        "model": "cnn",
        "random_seed": 0,
        "comm_round": 2,
        "client_num_in_total": 6,
        "client_num_per_round": 6,
        "epochs": 1,
        "batch_size": 32,
        "client_optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "frequency_of_the_test": 1,
        "enable_wandb": False,
        "using_gpu": False,
        "rank": 0,
    }
    return SimpleNamespace(**{**defaults, **changes})


def fedml_dataset(clients: int) -> list[Any]:
    """FedML's list of eight on digits; client i has 20 + i images, so that a sample count names its client."""
    images, labels = digits()
    parts, start = {}, 0
    for client in range(clients):
        parts[client] = slice(start, start + 20 + client)
        start += 20 + client
    test = DataLoader(TensorDataset(images[-200:], labels[-200:]), batch_size=100)

    def loader(part: slice) -> DataLoader[Any]:
        return DataLoader(TensorDataset(images[part], labels[part]), batch_size=16, shuffle=True)

    return [
        start,
        200,
        DataLoader(TensorDataset(images[:start], labels[:start]), batch_size=100),
        test,
        {client: 20 + client for client in parts},
        {client: loader(part) for client, part in parts.items()},
        {client: test if client == 0 else None for client in parts},
        10,
    ]
