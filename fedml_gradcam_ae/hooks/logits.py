"""Support in FedML's own trainers and tests for networks that return a tuple, a dict or one column instead of logits.

See `fedml_gradcam_ae.networks.outputs` for how the logits are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator
from fedml.ml.trainer.feddyn_trainer import FedDynModelTrainer
from fedml.ml.trainer.fedprox_trainer import FedProxModelTrainer
from fedml.ml.trainer.mime_trainer import MimeModelTrainer
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS
from fedml.ml.trainer.scaffold_trainer import ScaffoldModelTrainer

from fedml_gradcam_ae.networks.outputs import answer_with_logits

KNOWN = (
    ModelTrainerCLS,
    FedProxModelTrainer,
    FedDynModelTrainer,
    ScaffoldModelTrainer,
    MimeModelTrainer,
    DefaultServerAggregator,
)


def key() -> str | int | None:
    """Return the setting `logits`: the defense's, else the attack's, else None.

    Only the plug-in's own defense and attack have this setting.
    """
    defender, attacker = FedMLDefender.get_instance(), FedMLAttacker.get_instance()
    defense = getattr(defender.defender, "defense", None) if defender.is_enabled else None
    attack = attacker.attacker if attacker.is_enabled else None
    for owner in (defense, attack):
        found: str | int | None = getattr(getattr(owner, "settings", None), "logits", None)
        if found is not None:
            return found
    return None


def give_logits(owner: Any) -> Any:
    """Make the model of FedML's own classification trainers or server aggregator return logits.

    The model of a user's own trainer or aggregator is left unchanged, since that code knows what its network returns.

    Args:
        owner: a trainer or a server aggregator, with the attribute `model`.

    Returns:
        A handle whose `remove` undoes the change, or None if nothing was changed.
    """
    return answer_with_logits(owner.model, key()) if type(owner) in KNOWN else None


@contextmanager
def giving_logits(owner: Any) -> Iterator[None]:
    """Return a context manager that applies `give_logits` and undoes it at the end.

    Args:
        owner: a trainer or a server aggregator, with the attribute `model`.
    """
    handle = give_logits(owner)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
