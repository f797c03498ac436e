"""The choice of the attackers of a round, and their uploads; no defense has access to either."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedml_gradcam_ae.attacks.shared.colluders import own_images
from fedml_gradcam_ae.contract.interfaces import Poisoner
from fedml_gradcam_ae.contract.round import Round
from fedml_gradcam_ae.contract.settings import AttackSettings, SettingsError
from fedml_gradcam_ae.contract.tied import with_one_value
from fedml_gradcam_ae.contract.upload import ClientId, Upload
from fedml_gradcam_ae.networks.batchnorm import moved_statistics
from fedml_gradcam_ae.networks.images import seeded_generator

IMAGES = 200  # the number of an attacker's own images for `refresh_statistics`


def check_attackers(settings: AttackSettings, clients: Sequence[ClientId]) -> None:
    """Check the settings of the attackers against the clients of the federation.

    Args:
        settings: the settings of the attack.
        clients: the ids of all clients, at least one.

    Raises:
        SettingsError: if there are too few clients, an id is unknown, or the rounds do not fit together.
    """
    asked = settings.attackers
    if isinstance(asked, list):
        if strangers := [client for client in asked if client not in clients]:
            raise SettingsError(
                f"attack_params.attackers: no client has the id {', '.join(map(repr, strangers))}; "
                f"there are {len(clients)} clients, {clients[0]!r} to {clients[-1]!r}."
            )
    elif isinstance(asked, int) and asked > len(clients):
        raise SettingsError(f"attack_params.attackers: found {asked} attackers, but there are {len(clients)} clients.")
    pool = len(asked) if isinstance(asked, list) else _count(asked, len(clients))
    at_once = settings.at_once
    most = at_once[1] if isinstance(at_once, list) else at_once
    if most is not None and most > pool:
        raise SettingsError(f"attack_params.at_once: at most {pool} of {pool} attackers can attack, found {at_once}.")
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
    """Return the positions in `present` of the clients that attack in this round.

    Args:
        settings: the number or the ids of the attackers, when they are drawn and in which rounds they attack.
        number: the round t, from 1.
        clients: the ids of all clients of the federation.
        present: the ids of the clients that take part in this round.

    Returns:
        Positions in ascending order. Attackers that are drawn once per run attack in the rounds that they take part in,
        or, with `at_once`, some of them that are drawn for the round.

    Example:
        >>> settings = AttackSettings(attackers=[2, 3], first_round=2)
        >>> [attackers_in_round(settings, number, clients=[1, 2, 3], present=[1, 2]) for number in (1, 2)]
        [[], [1]]
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
    positions = [position for position, client in enumerate(present) if client in chosen]
    return positions if settings.at_once is None else _draw_at_once(settings, positions, number)


def all_attackers(
    settings: AttackSettings, number: int, clients: Sequence[ClientId], present: Sequence[ClientId]
) -> list[ClientId]:
    """Return the attackers of the run, or of the round where they are drawn anew, in the order of the clients.

    With `at_once`, these are all attackers, not only those that attack in the round.

    Args:
        settings: the number or the ids of the attackers, and when they are drawn.
        number: a round in which they attack, from 1.
        clients: the ids of all clients of the federation.
        present: the ids of the clients that take part in this round.

    Example:
        >>> all_attackers(AttackSettings(attackers=[2, 3]), number=1, clients=[1, 2, 3], present=[1, 2])
        [2, 3]
    """
    anew = settings.redraw == "every_round" and not isinstance(settings.attackers, list)
    pool = present if anew else clients
    all_of_them = settings.model_copy(update={"at_once": None})
    return [pool[position] for position in attackers_in_round(all_of_them, number, clients, pool)]


def poisoned_uploads(
    attack: Poisoner, settings: AttackSettings, round: Round, positions: Sequence[int]
) -> list[Upload]:
    """Return one poisoned upload per attacker, with refreshed BatchNorm statistics where the settings say so.

    Args:
        attack: the attack.
        settings: the settings of the attack.
        round: the round, its uploads all honest.
        positions: the positions of the attackers, at least one.

    Returns:
        One state dict per attacker, in the order of `positions`.
    """
    uploads = list(attack.poison(round, positions))
    if settings.refresh_statistics:
        for number, position in enumerate(positions):
            generator = seeded_generator(settings.seed, 5, round.number, position)
            images, _ = own_images(round, [position], IMAGES, generator, labeled=False)
            if len(images) < 2:
                continue  # a variance needs at least two images
            like, honest, poisoned = next(round.network.parameters()), round.uploads[position], uploads[number]
            moved = moved_statistics(round.network, round.global_model, honest, poisoned, images.to(like))
            uploads[number] = {**poisoned, **{name: tensor.to(poisoned[name]) for name, tensor in moved.items()}}
    # An upload is the state dict of a network, in which tied weights have one value.
    return [with_one_value(upload, round.tied) for upload in uploads] if round.tied else uploads


def _draw_at_once(settings: AttackSettings, positions: list[int], number: int) -> list[int]:
    """Return the positions, in ascending order, of those attackers that attack in a round."""
    generator = seeded_generator(settings.seed, 6, number)
    asked = settings.at_once
    if isinstance(asked, list):
        asked = int(torch.randint(asked[0], asked[1] + 1, (), generator=generator))
    order = torch.randperm(len(positions), generator=generator)
    return sorted(positions[int(place)] for place in order[:asked])


def _draw(settings: AttackSettings, pool: Sequence[ClientId], number: int) -> set[ClientId]:
    asked = settings.attackers
    assert not isinstance(asked, list)
    count = min(_count(asked, len(pool)), len(pool))
    order = torch.randperm(len(pool), generator=seeded_generator(settings.seed, 0, number))
    return {pool[int(position)] for position in order[:count]}


def _count(asked: int | float, clients: int) -> int:
    """Return the number of attackers from a number, or from a share of the clients."""
    return max(1, round(asked * clients)) if isinstance(asked, float) else asked
