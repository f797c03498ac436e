"""FedML's own trainers and tests on networks that return a tuple, a dict or one column instead of logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator
from fedml.ml.trainer.my_model_trainer_classification import ModelTrainerCLS

from fedml_gradcam_ae.networks.outputs import answer_with_logits


def key() -> str | int | None:
    """`logits` of the plug-in's defense or attack that is on, the defense's first; None where neither has any."""
    defender, attacker = FedMLDefender.get_instance(), FedMLAttacker.get_instance()
    defense = getattr(defender.defender, "defense", None) if defender.is_enabled else None
    attack = attacker.attacker if attacker.is_enabled else None
    for owner in (defense, attack):
        found: str | int | None = getattr(getattr(owner, "settings", None), "logits", None)
        if found is not None:
            return found
    return None


def give_logits(owner: Any) -> Any:
    """Have the model of FedML's own classification trainer or server aggregator answer with logits.

    A user's own trainer or aggregator knows what its network returns, so its model is left alone.

    Returns:
        A handle that undoes it, or None.
    """
    known = type(owner) in (ModelTrainerCLS, DefaultServerAggregator)
    return answer_with_logits(owner.model, key()) if known else None


@contextmanager
def giving_logits(owner: Any) -> Iterator[None]:
    """`give_logits` while the block runs."""
    handle = give_logits(owner)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
