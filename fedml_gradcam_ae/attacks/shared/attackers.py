"""Who attacks, and when: the part of a simulation's truth that no defense ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fedml_gradcam_ae.attacks.shared.colluders import own_images
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings, SettingsError
from fedml_gradcam_ae.contract.tied import with_one_value
from fedml_gradcam_ae.contract.upload import ClientId, Upload
from fedml_gradcam_ae.networks.batchnorm import moved_statistics
from fedml_gradcam_ae.networks.images import seeded_generator

IMAGES = 200  # of an attacker's own, that show what its weights change in BatchNorm's statistics


def check_attackers(settings: AttackSettings, clients: Sequence[ClientId]) -> None:
    """Raise SettingsError unless the clients can provide these attackers."""
    asked = settings.attackers
    if isinstance(asked, list):
        if strangers := [client for client in asked if client not in clients]:
            raise SettingsError(
                f"attack_params.attackers: no client has the id {', '.join(map(repr, strangers))}; "
                f"there are {len(clients)} clients, {clients[0]!r} to {clients[-1]!r}."
            )
    elif isinstance(asked, int) and asked > len(clients):
        raise SettingsError(f"attack_params.attackers: found {asked} attackers, but there are {len(clients)} clients.")
    if settings.last_round is not None and settings.last_round < settings.first_round:
        raise SettingsError(
            f"attack_params: last_round must not be before first_round, "
            f"found {settings.last_round} before {settings.first_round}."
        )
    if (settings.active is None) != (settings.pause == 0):
        raise SettingsError(
            "attack_params: active and pause belong together (active: 3, pause: 2 attacks in three rounds of five), "
            f"found active {settings.active} and pause {settings.pause}."
        )


def attackers_in_round(
    settings: AttackSettings, number: int, clients: Sequence[ClientId], present: Sequence[ClientId]
) -> list[int]:
    """Positions in `present` of the clients that attack in this round.

    Args:
        settings: how many or which, drawn when, attacking in which rounds.
        number: the round t, from 1.
        clients: everybody who may take part in the federation.
        present: who takes part in this round.

    Returns:
        Positions in ascending order. Attackers drawn once for the run attack when they take part.
    """
    if number < settings.first_round or (settings.last_round is not None and number > settings.last_round):
        return []
    if settings.active is not None and (number - settings.first_round) % (settings.active + settings.pause) >= (
        settings.active
    ):
        return []
    if isinstance(settings.attackers, list):
        chosen = set(settings.attackers)
    elif settings.redraw == "every_round":
        chosen = _draw(settings, present, number)
    else:
        chosen = _draw(settings, clients, 0)
    return [position for position, client in enumerate(present) if client in chosen]


def poisoned_uploads(attack: Any, settings: AttackSettings, round: Round, positions: Sequence[int]) -> list[Upload]:
    """One upload of the attack for each of the attackers, with statistics as the settings want them.

    Args:
        attack: an instance of ours.
        settings: its settings.
        round: the round, its uploads all honest.
        positions: of the attackers, at least one.
    """
    uploads: list[Upload] = attack.poison(round, positions)
    if settings.refresh_statistics:
        for number, position in enumerate(positions):
            generator = seeded_generator(settings.seed, 5, round.number, position)
            images, _ = own_images(round, [position], IMAGES, generator, labeled=False)
            if len(images) < 2:
                continue  # nothing to take a variance of
            like, honest, poisoned = next(round.network.parameters()), round.uploads[position], uploads[number]
            moved = moved_statistics(round.network, round.global_model, honest, poisoned, images.to(like))
            uploads[number] = {**poisoned, **{name: tensor.to(poisoned[name]) for name, tensor in moved.items()}}
    # What an attacker uploads comes out of a network, in which tied weights are one.
    return [with_one_value(upload, round.tied) for upload in uploads] if round.tied else uploads


def _draw(settings: AttackSettings, pool: Sequence[ClientId], number: int) -> set[ClientId]:
    asked = settings.attackers
    assert not isinstance(asked, list)
    count = max(1, round(asked * len(pool))) if isinstance(asked, float) else min(asked, len(pool))
    order = torch.randperm(len(pool), generator=seeded_generator(settings.seed, 0, number))
    return {pool[int(position)] for position in order[:count]}
