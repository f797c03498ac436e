"""Patches of FedMLAttacker: run the plug-in's attacks and reject unknown types."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedml.core.security.attack.attack_base import BaseAttackMethod
from fedml.core.security.fedml_attacker import FedMLAttacker
from torch import nn

from fedml_gradcam_ae.attacks.shared.attackers import all_attackers, attackers_in_round, poisoned_uploads
from fedml_gradcam_ae.contract.interfaces import Attack, overrides
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.contract.upload import ClientId
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.hooks.patching import Patches
from fedml_gradcam_ae.hooks.surroundings import Uploads, current, identity


class PluginAttack(BaseAttackMethod):  # type: ignore[misc]  # fedml has no types
    """Adapter that gives one of the plug-in's attacks the interface of FedML's attacks.

    Args:
        attack: the attack.
        settings: its checked settings.
    """

    def __init__(self, attack: Attack, settings: AttackSettings) -> None:
        self.attack, self.settings = attack, settings

    def attack_model(self, raw_client_grad_list: Uploads, extra_auxiliary_info: Any = None) -> Uploads:
        """Return the uploads of this round with those of the attackers replaced by poisoned uploads.

        Args:
            raw_client_grad_list: pairs (sample count, state dict), in the order of the clients.
            extra_auxiliary_info: the state dict of the global model.

        Raises:
            RuntimeError: if no round is being aggregated.
        """
        federation = current()
        if federation is None:
            raise RuntimeError("A plug-in attack runs inside FedML's simulator only: no round is being aggregated.")
        present = federation.present
        # Drawn among the clients that trained, as for the poisoning of their data: some uploads may be lost since.
        trained = federation.trained if federation.trained is not None else present
        drawn = attackers_in_round(self.settings, federation.number, federation.clients, trained)
        attackers = {trained[i] for i in drawn}
        positions = [i for i, client in enumerate(present) if client in attackers]
        federation.attackers = [present[i] for i in positions]
        if not positions:
            return raw_client_grad_list
        round = federation.round(raw_client_grad_list, extra_auxiliary_info, with_local_data=True)
        if self.settings.claimed_samples is not None:
            samples = [self.settings.claimed_samples if i in positions else n for i, n in enumerate(round.samples)]
            round = replace(round, samples=samples)
            federation.samples.update(zip(present, samples, strict=True))
        poisoned = dict(zip(positions, poisoned_uploads(self.attack, self.settings, round, positions), strict=True))
        return [
            (round.samples[i], _as_fedml_has_it(poisoned[i]) if i in poisoned else upload)
            for i, upload in enumerate(round.uploads)
        ]


def _as_fedml_has_it(upload: Any) -> Any:
    """Return a state dict as an OrderedDict, and anything else unchanged; the gate refuses the latter."""
    return OrderedDict(upload) if isinstance(upload, Mapping) else upload


def training_data(
    data: Iterable[Any],
    network: nn.Module,
    *,
    client: Any,
    number: int,
    clients: Sequence[ClientId],
    present: Sequence[Any],
) -> Iterable[Any]:
    """Return the batches that a client trains on in one round.

    They are poisoned if one of the plug-in's attacks poisons data and the client is an attacker in this round. In all
    other cases they are the client's own batches.

    Args:
        data: the client's own batches.
        network: the model that the client trains.
        client: the client's id.
        number: the round, counted from 1.
        clients: all clients that may take part.
        present: the clients that take part in this round.
    """
    attacker = FedMLAttacker.get_instance()
    own = attacker.attacker if attacker.is_enabled else None
    if not isinstance(own, PluginAttack) or not overrides(type(own.attack), "poison_data"):
        return data
    ids = [identity(one) for one in present]
    attacking = [ids[position] for position in attackers_in_round(own.settings, number, clients, ids)]
    if identity(client) not in attacking:
        return data
    everyone = all_attackers(own.settings, number, clients, ids)
    return own.attack.poison_data(network, data, everyone.index(identity(client)), len(everyone))


def patch(patches: Patches) -> None:
    """Make FedMLAttacker accept the plug-in's attack types."""
    stock_init, stock_is_model_attack = FedMLAttacker.init, FedMLAttacker.is_model_attack

    def init(self: Any, args: Any) -> None:
        requested = configuration.requested(configuration.ATTACK, args)
        if requested is None:
            stock_init(self, args)
        elif requested.cls is None:
            stock_init(self, with_type(args, "attack_type", requested.name))
        else:
            self.is_enabled = True
            self.attack_type = requested.name
            self.attack_prob = getattr(args, "attack_prob", 1)
            assert isinstance(requested.settings, AttackSettings)
            self.attacker = PluginAttack(requested.build(), requested.settings)

    patches.replace(
        FedMLAttacker,
        "init",
        init,
        mends="a closed list of types; an unknown one runs without an attack and without a warning",
    )

    def is_model_attack(self: Any) -> bool:
        if isinstance(self.attacker, PluginAttack):
            return bool(self.is_attack_enabled())
        return bool(stock_is_model_attack(self))

    patches.replace(
        FedMLAttacker, "is_model_attack", is_model_attack, mends="a hard-coded list of types that change models"
    )


def with_type(args: Any, key: str, name: str) -> Any:
    """Return FedML's args with a type in the spelling that FedML knows.

    Args:
        args: FedML's args.
        key: "attack_type" or "defense_type".
        name: the name of the type, without the prefix `fedml:`.

    Returns:
        The same object if `key` has that value already, else a shallow copy.
    """
    if getattr(args, key) == name:
        return args
    renamed = copy.copy(args)
    setattr(renamed, key, name)
    return renamed
