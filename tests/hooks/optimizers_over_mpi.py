"""The runs of over_mpi.py with optimizers other than FedAvg."""

from __future__ import annotations

from typing import Any

import torch
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator
from torch import nn

from federations import PLAIN
from fedml_gradcam_ae import Attack, register_attack
from tiny import tiny_cnn

# With these, six clients take part, on four ranks; else four of four.
SEVERAL = ("FedAvg_seq", "FedOpt_seq", "FedNova")
OPTIMIZERS = ("FedProx", "FedOpt", *SEVERAL)
BROKEN, STRONG = 1, 3  # the attackers of "under attack": one uploads NaN, the other is far off
KEYS: dict[str, Any] = {
    "server_optimizer": "sgd",
    "server_lr": 0.7,
    "server_momentum": 0.5,
    "gmf": 0.5,
    "mu": 0.0,
    "momentum": 0.5,
    "dampening": 0.0,
    "nesterov": False,
    "batch_size": 7,  # the clients make three or four steps
}
ATTACKED = {"enable_attack": True, "attack_params": {"attackers": [BROKEN, STRONG]}}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gently attacked": {**ATTACKED, "attack_type": "gentle"},
    "defended": {
        **ATTACKED,
        "attack_type": "broken_and_strong",
        "enable_defense": True,
        "defense_type": "multi_krum",
        "defense_params": {"malicious": 0, "kept": 2},
    },
}
# Runs of one optimizer alone.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "proximal term": ("FedProx", {"fedprox_mu": 2.0}),
    "FedAvg of six": ("FedAvg_seq", {"batch_size": 16}),
    "whole numbers": ("FedNova", {**WAYS["gently attacked"], "momentum": 0.0, "gmf": 0.0, "batch_size": 16}),
    "flipped labels on few ranks": (
        "FedAvg_seq",
        {
            "enable_attack": True,
            "attack_type": "label_flip",
            "attack_params": {"attackers": 2, "redraw": "every_round"},
            "enable_defense": True,
            "defense_type": "median",
            "batch_size": 16,
        },
    ),
}


def options(optimizer: str, **way: Any) -> dict[str, Any]:
    """What a user would write."""
    clients = 6 if optimizer in SEVERAL else 4
    counts = {"client_num_in_total": clients, "client_num_per_round": clients, "comm_round": 2}
    return {**PLAIN, **counts, **KEYS, "federated_optimizer": optimizer, **way}


def network(optimizer: str) -> nn.Module:
    """FedML's FedNova stops at BatchNorm's whole numbers."""
    layers = [layer for layer in tiny_cnn() if optimizer != "FedNova" or not isinstance(layer, nn.BatchNorm2d)]
    return nn.Sequential(*layers)


class TestsNothing(DefaultServerAggregator):
    """With it FedML's own FedProx and FedOpt get past their tests, which fail otherwise."""

    def test_all(self, *args, **options):
        return True


def register_attacks() -> None:
    @register_attack("gentle")
    class Gentle(Attack):
        def poison(self, round, attackers):
            return [dict(round.uploads[position]) for position in attackers]

    @register_attack("broken_and_strong")
    class BrokenAndStrong(Attack):
        def poison(self, round, attackers):
            factor = {BROKEN: torch.nan, STRONG: 100.0}
            return [
                {
                    name: tensor * factor[round.client_ids[position]] if tensor.is_floating_point() else tensor
                    for name, tensor in round.uploads[position].items()
                }
                for position in attackers
            ]
