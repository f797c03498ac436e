"""The names that a defense of FedML's and one of the plug-in's share, and what FedML's keys mean to the plug-in's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedml_gradcam_ae.hooks import builtin

Translate = Callable[[Mapping[str, Any], int], tuple[str, dict[str, Any]]]


class Shared(NamedTuple):
    """A name that both have.

    Attributes:
        translate: function of FedML's keys that are given and the clients a round; it returns the name of the plug-in's
            rule and its parameters.
        why: what is wrong with FedML's own, as a clause after "which".
    """

    translate: Translate
    why: str


def _krum(keys: Mapping[str, Any], _clients: int) -> tuple[str, dict[str, Any]]:
    """Translate f, a number of clients, and m, the number of uploads that are averaged: above 1 this is Multi-Krum."""
    params = {"malicious": keys["byzantine_client_num"]} if "byzantine_client_num" in keys else {}
    kept = keys.get("krum_param_m", 1)
    return ("multi_krum", {**params, "kept": kept}) if kept > 1 else ("krum", params)


def _weak_dp(keys: Mapping[str, Any], clients: int) -> tuple[str, dict[str, Any]]:
    """Translate the deviation of the noise: FedML adds it to each of K uploads, the plug-in to their average."""
    return "weak_dp", {"noise": keys["stddev"] / math.sqrt(clients)} if "stddev" in keys else {}


def _renamed(name: str, **names: str) -> Translate:
    """Return a translation that only renames keys, from FedML's name to the plug-in's."""
    return lambda keys, _clients: (name, {names[key]: value for key, value in keys.items()})


SHARED: dict[str, Shared] = {
    "krum": Shared(_krum, "compares every pair of uploads twice, one by one"),
    "trimmed_mean": Shared(_renamed("trimmed_mean", beta="beta"), "drops whole clients by their sample count"),
    "foolsgold": Shared(_renamed("foolsgold"), "sums by place in the round, not by client, and compares models"),
    "weak_dp": Shared(_weak_dp, "is accepted and never called"),
    "crfl": Shared(_renamed("crfl", clip_threshold="bound", sigma="noise"), "has no vote of noised models"),
}


def as_text(values: Mapping[str, Any]) -> str:
    """Return keys and values as YAML has them.

    Args:
        values: by key.

    Example:
        >>> as_text({"malicious": 1, "kept": None})
        'malicious: 1, kept: null'
    """
    return ", ".join(f"{key}: {'null' if value is None else value}" for key, value in values.items())


def explanation(name: str, keys: Mapping[str, Any], runs: str, params: Mapping[str, Any]) -> str:
    """Return a line that says what runs under a name that both have.

    Args:
        name: what the user wrote.
        keys: FedML's keys that are taken over.
        runs: the plug-in's rule that runs.
        params: its parameters that follow from them.

    Example:
        >>> explanation("trimmed_mean", {"beta": 0.1}, "trimmed_mean", {"beta": 0.1})
        "defense_type: trimmed_mean with beta: 0.1 runs the plug-in's trimmed_mean with beta: 0.1. FedML's own, \
fedml:trimmed_mean, drops whole clients by their sample count."
    """
    beside = f" with {as_text(keys)}" if keys else ""
    having = f" with {as_text(params)}" if params else ""
    return (
        f"defense_type: {name}{beside} runs the plug-in's {runs}{having}. FedML's own, {builtin.PREFIX}{name}, "
        f"{SHARED[name].why}."
    )
