import pytest
import torch

from fedml_gradcam_ae.attacks.shared.attackers import (
    all_attackers,
    attackers_in_round,
    check_attackers,
    poisoned_uploads,
)
from fedml_gradcam_ae.attacks.sign_flip import SignFlip
from fedml_gradcam_ae.contract.settings import AttackSettings, SettingsError
from fedml_gradcam_ae.networks.batchnorm import moved_statistics
from tiny import digits

CLIENTS = range(20)


def who(number=1, present=CLIENTS, **params):
    present = list(present)
    return {present[i] for i in attackers_in_round(AttackSettings(**params), number, CLIENTS, present)}


def test_a_number_or_a_share_of_all_clients() -> None:
    assert len(who(attackers=2)) == 2
    assert len(who(attackers=0.4)) == 8
    assert len(who(attackers=1.0)) == 20
    assert len(who(attackers=0.01)) == 1


def test_a_list_names_them() -> None:
    assert who(attackers=[3, 17]) == {3, 17}


def test_drawn_once_they_stay_for_all_rounds_whoever_else_takes_part() -> None:
    fixed = who(attackers=4)
    assert all(who(number, attackers=4) == fixed for number in range(1, 30))
    assert who(present=range(10), attackers=4) == {client for client in fixed if client < 10}


def test_positions_are_those_of_the_uploads() -> None:
    present = [17, 5, 3]
    assert attackers_in_round(AttackSettings(attackers=[3, 17]), 1, CLIENTS, present) == [0, 2]


def test_redrawn_they_change_and_come_from_those_present() -> None:
    rounds = [who(number, present=range(10), attackers=2, redraw="every_round") for number in range(1, 30)]
    assert all(len(chosen) == 2 and chosen <= set(range(10)) for chosen in rounds)
    assert len({frozenset(chosen) for chosen in rounds}) > 10


def test_the_seed_decides() -> None:
    assert who(attackers=2, seed=0) == who(attackers=2, seed=0)
    assert len({frozenset(who(attackers=2, seed=seed)) for seed in range(10)}) > 5


def test_everybody_can_be_drawn() -> None:
    assert set().union(*(who(attackers=2, seed=seed) for seed in range(100))) == set(CLIENTS)


def test_of_a_pool_some_attack_in_each_round() -> None:
    pool = who(attackers=6)
    rounds = [who(number, attackers=6, at_once=2) for number in range(1, 40)]
    assert all(len(chosen) == 2 and chosen < pool for chosen in rounds)
    assert set.union(*rounds) == pool
    assert rounds == [who(number, attackers=6, at_once=2) for number in range(1, 40)]


def test_each_of_those_that_attack_at_once_is_one_of_all_attackers() -> None:
    settings = AttackSettings(attackers=4, at_once=1)
    for number in range(1, 30):
        present = [client for client in CLIENTS if (client + number) % 2]
        everyone = all_attackers(settings, number, CLIENTS, present)
        assert set(everyone) == who(attackers=4)
        assert who(number, present, attackers=4, at_once=1) <= set(everyone)


def test_the_number_that_attack_at_once_can_be_random() -> None:
    rounds = [who(number, attackers=6, at_once=[0, 4]) for number in range(1, 200)]
    assert {len(chosen) for chosen in rounds} == {0, 1, 2, 3, 4}
    assert set.union(*rounds) == who(attackers=6)


@pytest.mark.parametrize("range_", [0, [3], [2, 1], [-1, 2], [0, 0], [1, 2, 3], True])
def test_what_is_no_number_at_once_is_refused(range_) -> None:
    with pytest.raises(ValueError, match="at_once"):
        AttackSettings(attackers=4, at_once=range_)


def test_an_attack_may_start_late_and_stop() -> None:
    attacked = [number for number in range(1, 9) if who(number, attackers=1, first_round=3, last_round=5)]
    assert attacked == [3, 4, 5]


def test_an_attack_may_pause_again_and_again() -> None:
    attacked = [number for number in range(1, 15) if who(number, attackers=1, active=3, pause=2)]
    assert attacked == [1, 2, 3, 6, 7, 8, 11, 12, 13]


def test_pauses_count_from_the_first_round_and_end_with_the_last() -> None:
    late = [number for number in range(1, 15) if who(number, attackers=1, first_round=4, active=1, pause=3)]
    assert late == [4, 8, 12]
    stopped = [n for n in range(1, 15) if who(n, attackers=1, first_round=2, last_round=7, active=2, pause=1)]
    assert stopped == [2, 3, 5, 6]


def test_the_same_clients_attack_again_after_a_pause() -> None:
    assert who(1, attackers=3, active=1, pause=1) == who(3, attackers=3, active=1, pause=1) != set()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attackers": 21}, "found 21 attackers, but there are 20 clients"),
        ({"attackers": [3, 99]}, "no client has the id 99; there are 20 clients, 0 to 19"),
        ({"first_round": 5, "last_round": 2}, "last_round must not be before first_round, found 2 before 5"),
        ({"attackers": 4, "at_once": 5}, "at_once: at most 4 of 4 attackers can attack, found 5"),
        ({"attackers": 0.1, "at_once": [0, 3]}, r"at_once: at most 2 of 2 attackers can attack, found \[0, 3\]"),
        ({"active": 3}, "active and pause belong together .* found active 3 and pause 0"),
        ({"pause": 2}, "active and pause belong together .* found active None and pause 2"),
    ],
)
def test_what_the_clients_cannot_provide_is_refused(params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        check_attackers(AttackSettings(**params), CLIENTS)


@pytest.mark.parametrize("refresh", [False, True])
def test_statistics_move_with_the_poisoned_weights_on_the_attackers_own_images_if_asked_for(
    make_round, refresh
) -> None:
    images, labels = digits()
    own = {101: [(images[:30], labels[:30])], 104: [(images[30:90], labels[30:90])]}
    round = make_round(local_data=own)
    for upload in round.uploads:
        upload["1.num_batches_tracked"] = round.global_model["1.num_batches_tracked"] + 2
    settings = SignFlip.Settings(refresh_statistics=refresh)
    plain = SignFlip(settings).poison(round, [1, 4])
    found = poisoned_uploads(SignFlip(settings), settings, round, [1, 4])
    for position, before, after in zip((1, 4), plain, found, strict=True):
        weights = [name for name in before if "running" not in name]
        assert all(torch.equal(before[name], after[name]) for name in weights)
        honest, pictures = round.uploads[position], own[100 + position][0][0]
        expected = moved_statistics(round.network, round.global_model, honest, before, pictures) if refresh else honest
        assert torch.allclose(after["1.running_mean"], expected["1.running_mean"], atol=1e-6)
        assert torch.allclose(after["1.running_var"], expected["1.running_var"], rtol=1e-5)
        assert torch.equal(after["1.running_mean"], honest["1.running_mean"]) != refresh


def test_a_single_image_refreshes_nothing(make_round) -> None:
    images, labels = digits()
    round = make_round(local_data={101: [(images[:1], labels[:1])]})
    settings = SignFlip.Settings(refresh_statistics=True)
    (upload,) = poisoned_uploads(SignFlip(settings), settings, round, [1])
    assert torch.equal(upload["1.running_var"], round.uploads[1]["1.running_var"])
