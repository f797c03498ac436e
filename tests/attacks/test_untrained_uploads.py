"""Attackers that add noise, train nothing, or upload something old."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.attacks.free_rider import FreeRider
from fedml_gradcam_ae.attacks.gaussian_noise import GaussianNoise
from fedml_gradcam_ae.attacks.replay import Replay
from flat import flat_round, update


def test_gaussian_noise_has_its_deviation_and_differs_between_attackers(make_round) -> None:
    drawn = np.random.default_rng(0).normal(size=(4, 20_000))
    round = flat_round(make_round, drawn, start=0.5)
    first, second = GaussianNoise(GaussianNoise.Settings(sigma=0.3)).poison(round, [1, 3])
    noises = [update(round, first) - drawn[1], update(round, second) - drawn[3]]
    for noise in noises:
        assert noise.mean() == pytest.approx(0, abs=0.01)
        assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.05


def test_relative_noise_is_as_long_as_a_multiple_of_the_update(make_round) -> None:
    drawn = np.random.default_rng(0).normal(size=(3, 20_000)) * np.array([[1.0], [0.01], [0.0]])
    round = flat_round(make_round, drawn)
    poisoned = GaussianNoise(GaussianNoise.Settings(sigma=2.0, relative=True)).poison(round, [0, 1, 2])
    for upload, honest in zip(poisoned, drawn, strict=True):
        assert np.linalg.norm(update(round, upload) - honest) == pytest.approx(2 * np.linalg.norm(honest), rel=0.03)


def test_noise_leaves_the_statistics_honest(make_round) -> None:
    round = make_round()
    uploads = [{**u, "1.running_mean": torch.full((4,), float(i))} for i, u in enumerate(round.uploads)]
    (poisoned,) = GaussianNoise().poison(make_round(uploads=uploads), [2])
    assert poisoned["1.running_mean"].tolist() == [2.0] * 4


def test_a_free_riders_noise_fades_with_the_rounds(make_round) -> None:
    round = flat_round(make_round, np.ones((3, 20_000)), start=0.5)
    for number, deviation in [(1, 0.2), (4, 0.1)]:
        attack = FreeRider(FreeRider.Settings(sigma=0.2, gamma=0.5))
        first, second = attack.poison(replace(round, number=number), [0, 2])
        assert update(round, first).std() == pytest.approx(deviation, rel=0.03)
        assert update(round, first).mean() == pytest.approx(0, abs=0.01)
        assert not torch.equal(first["weight"], second["weight"])


def test_a_plain_free_rider_uploads_the_global_model_with_its_statistics(make_round) -> None:
    round = make_round()
    (upload,) = FreeRider(FreeRider.Settings(sigma=0.0)).poison(round, [1])
    assert all(torch.equal(upload[name], round.global_model[name]) for name in round.global_model)


def test_delta_repeats_the_last_global_update(make_round) -> None:
    attack = FreeRider(FreeRider.Settings(sigma=0.0, delta=True))
    starts = [1.0, 1.5, 1.2]
    found = []
    for number, start in enumerate(starts, start=1):
        round = flat_round(make_round, np.ones((3, 4)), start=start, number=number)
        found.append(update(round, attack.poison(round, [0])[0]))
    assert np.allclose(found, [[0.0] * 4, [0.5] * 4, [-0.3] * 4])


def test_replayed_uploads_are_the_clients_own_even_if_it_was_away(make_round) -> None:
    attack = Replay(Replay.Settings(age=1))
    found = []
    for number, attackers in enumerate([[0, 2], [0], [0, 2]], start=1):
        drawn = np.array([[10.0 * client + number] for client in range(3)])
        round = flat_round(make_round, drawn, number=number)
        found.append([float(update(round, upload)[0]) for upload in attack.poison(round, attackers)])
    assert found == [[1, 21], [1], [2, 21]]
