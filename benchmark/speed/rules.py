"""The rules that are timed: all registered defenses, FedML's Krum family, and the rules of ByzFL that we also have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import byzfl
from fedml.core.security.defense.krum_defense import KrumDefense

from benchmark.speed.uploads import matrix
from fedml_gradcam_ae import Round
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import DefenseSettings

SHARE = 0.1  # fraction of the clients that rules assume to be malicious
# Settings of registered defenses, as far as a defense has these keys. Other settings keep their defaults.
PARAMETERS: dict[str, Any] = {
    "malicious": SHARE,
    "beta": SHARE,
    "rule": "trimmed_mean",
    "rule_params": {"beta": SHARE},
    "local_epochs": 1,
    "local_learning_rate": 0.01,
    "local_optimizer": "sgd",
    "local_weight_decay": 0.0,
    "local_batch_size": 32,
}
# Registered defenses that are also timed with other settings.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradcam_ae-paper": ("gradcam_ae", {"profile": "paper"}),
    "gradcam_ae-paper-native": ("gradcam_ae", {"profile": "paper", "map_size": "native"}),
}


@dataclass(frozen=True)
class Rule:
    """How to time one rule.

    Attributes:
        build: from the number of clients to a new judge, a function of what `prepare` returns.
        prepare: from the uploads to the judge's input, not timed; by default a copy of the Round with nothing cached.
    """

    build: Callable[[int], Callable[[Any], Any]]
    prepare: Callable[[Round], Any] = replace


def rules() -> dict[str, Rule]:
    """Return all registered defenses and FedML's Krum and multi-Krum by name.

    Defenses that are registered outside of the plug-in are included.
    """
    defenses = registry.defenses()
    variants = {**{name: (name, {}) for name in defenses}, **VARIANTS}
    ours = {name: Rule(partial(_ours, defenses[base], changed)) for name, (base, changed) in variants.items()}
    return {
        "fedml:krum": Rule(lambda clients: _fedml_krum(clients, 1)),
        "fedml:multikrum": Rule(lambda clients: _fedml_krum(clients, clients - 2 * _malicious(clients) - 2)),
        **dict(sorted(ours.items())),
    }


def byzfl_rules() -> dict[str, Rule]:
    """Return ByzFL's rules by name; their input is a matrix, which is built before the timed region."""
    return {
        "byzfl:Krum": Rule(lambda clients: byzfl.Krum(f=_malicious(clients)), matrix),
        "byzfl:MultiKrum": Rule(lambda clients: byzfl.MultiKrum(f=_malicious(clients)), matrix),
        "byzfl:TrMean": Rule(lambda clients: byzfl.TrMean(f=_malicious(clients)), matrix),
        "byzfl:Median": Rule(lambda clients: byzfl.Median(), matrix),
    }


def _malicious(clients: int) -> int:
    return round(SHARE * clients)


def _ours(cls: type[Any], changed: dict[str, Any], clients: int) -> Callable[[Round], Any]:
    settings: type[DefenseSettings] = cls.Settings
    given = {key: value for key, value in PARAMETERS.items() if key in settings.model_fields}
    judge: Callable[[Round], Any] = cls(settings(**given | changed)).judge
    return judge


def _fedml_krum(clients: int, kept: int) -> Callable[[Round], Any]:
    """Return FedML's Krum (kept = 1) or multi-Krum, which can keep at most K - 2 f - 2 uploads."""
    rule = KrumDefense(SimpleNamespace(byzantine_client_num=_malicious(clients), krum_param_m=kept))
    return lambda round: rule.defend_before_aggregation(list(zip(round.samples, round.uploads, strict=True)))
