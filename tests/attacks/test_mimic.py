import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.attacks.mimic import Mimic
from flat import flat_round, update


def furthest(benign):
    """By the singular vectors themselves."""
    centered = benign - benign.mean(axis=0)
    direction = np.linalg.svd(centered)[2][0]
    return int(np.abs(centered @ direction).argmax())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), clients=st.integers(3, 10), size=st.integers(3, 30))
def test_the_client_furthest_along_the_direction_of_largest_variance(make_round, seed, clients, size) -> None:
    benign = np.random.default_rng(seed).normal(size=(clients, size))
    round = flat_round(make_round, np.vstack([benign, np.zeros((2, size))]))
    for poisoned in Mimic(Mimic.Settings()).poison(round, [clients, clients + 1]):
        assert update(round, poisoned) == pytest.approx(benign[furthest(benign)])


def test_an_exact_copy_statistics_included(make_round) -> None:
    uploads = [{**u, "1.running_mean": torch.full((4,), float(i))} for i, u in enumerate(make_round().uploads)]
    (poisoned,) = Mimic(Mimic.Settings()).poison(make_round(uploads=uploads), [0])
    assert sum(all(torch.equal(poisoned[n], upload[n]) for n in upload) for upload in uploads[1:]) == 1


def copied(attack, round, attackers=(0,)):
    (poisoned, *_) = attack.poison(round, list(attackers))
    return next(
        c for c, u in zip(round.client_ids, round.uploads, strict=True) if torch.equal(u["weight"], poisoned["weight"])
    )


def rounds(make_round, count=8):
    generator = np.random.default_rng(2)
    return [flat_round(make_round, generator.normal(size=(6, 20)), number=n) for n in range(1, count + 1)]


def test_the_client_stays_while_it_takes_part(make_round) -> None:
    chosen = {copied(Mimic(Mimic.Settings()), round) for round in rounds(make_round)}
    assert len(chosen) > 2  # on its own, each round would choose another one
    attack = Mimic(Mimic.Settings(eavesdropped=2))
    assert len({copied(attack, round) for round in rounds(make_round)}) == 1


def test_another_one_is_chosen_where_it_is_missing_attacks_or_is_unusable(make_round) -> None:
    attack = Mimic(Mimic.Settings())
    first, second, third, fourth, *_ = rounds(make_round)
    client = copied(attack, first)
    remaining = [i for i, c in enumerate(second.client_ids) if c != client]
    successor = copied(attack, second.only(remaining))
    assert successor != client
    assert copied(attack, third, [0, third.client_ids.index(successor)]) != successor
    current = attack.copied
    fourth.uploads[fourth.client_ids.index(current)]["weight"].fill_(torch.nan)
    assert copied(attack, fourth) != current
