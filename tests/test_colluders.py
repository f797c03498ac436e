"""What colluders know is compared with numpy; what they upload, with what was agreed."""

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.attacks.shared.colluders import Colluders, ColludingSettings, overhear, own_images
from fedml_gradcam_ae.networks.images import seeded_generator
from flat import flat_round, update, updates
from tiny import digits, tiny_cnn


def collude(round, attackers, **params):
    return Colluders(round, attackers, ColludingSettings(**params))


def test_mean_deviation_and_inner_products_are_numpys(make_round) -> None:
    round = make_round(clients=7)
    colluders = collude(round, [0, 5])
    heard = updates(round, [1, 2, 3, 4, 6])
    centered = heard - heard.mean(axis=0)
    assert colluders.mean.numpy() == pytest.approx(heard.mean(axis=0), rel=1e-12)
    assert colluders.std.numpy() == pytest.approx(heard.std(axis=0), rel=1e-9)
    assert colluders.gram.numpy() == pytest.approx(centered @ centered.T, rel=1e-9)
    assert colluders.distances.numpy() == pytest.approx(np.linalg.norm(centered, axis=1), rel=1e-9)
    assert colluders.dot(colluders.std).numpy() == pytest.approx(heard @ heard.std(axis=0), rel=1e-9)


def test_uploads_that_agree_have_no_deviation_at_all(make_round) -> None:
    same = np.tile(np.random.default_rng(0).normal(size=50) / 3, (7, 1))
    colluders = collude(flat_round(make_round, same, start=0.1), [0])
    assert not colluders.std.any()
    assert not colluders.gram.any()


def test_as_many_are_overheard_as_asked_and_others_each_round(make_round) -> None:
    settings = ColludingSettings(eavesdropped=3)
    drawn = [overhear(make_round(clients=10, number=n), [2, 7], settings) for n in range(1, 30)]
    assert all(len(set(heard)) == 3 and not {2, 7} & set(heard) for heard in drawn)
    assert set().union(*drawn) == set(range(10)) - {2, 7}
    assert overhear(make_round(clients=10), [2, 7], ColludingSettings()) == [0, 1, 3, 4, 5, 6, 8, 9]


def test_uploads_that_the_server_will_refuse_are_not_learned_from(make_round) -> None:
    round = make_round()
    uploads = [dict(upload) for upload in round.uploads]
    uploads[3]["0.weight"] = uploads[3]["0.weight"] * torch.nan
    assert overhear(make_round(uploads=uploads), [1], ColludingSettings()) == [0, 2, 4, 5]


def test_where_nobody_is_benign_the_attackers_overhear_themselves(make_round) -> None:
    assert overhear(make_round(), list(range(6)), ColludingSettings()) == list(range(6))


def test_the_jitter_has_its_length_and_is_each_attackers_and_each_rounds_own(make_round) -> None:
    round = make_round(clients=8, network=tiny_cnn().double())
    heard = updates(round, range(2, 8))
    unit = np.linalg.norm(heard - heard.mean(axis=0), axis=1).mean()
    agreed = torch.full((len(heard[0]),), 0.01, dtype=torch.float64)

    def noise(round):
        return [update(round, upload) - 0.01 for upload in collude(round, [0, 1], jitter=0.3).upload(agreed)]

    first, second = noise(round)
    assert np.linalg.norm(first) == pytest.approx(0.3 * unit, rel=1e-9)
    assert np.linalg.norm(second) == pytest.approx(0.3 * unit, rel=1e-9)
    later = noise(make_round(clients=8, network=tiny_cnn().double(), number=2))[0]
    for other in (second, later):  # independent directions of 230 dimensions are about orthogonal
        assert abs(first @ other) < 0.3 * np.linalg.norm(first) * np.linalg.norm(other)


def test_with_their_own_deviations_attackers_differ_as_their_honest_updates_did(make_round) -> None:
    round = make_round(clients=8, network=tiny_cnn().double())
    heard, honest = updates(round, range(2, 8)), updates(round, [0, 1])
    agreed = torch.full((len(heard[0]),), 0.01, dtype=torch.float64)
    for share in (0.5, 1.0):
        uploads = collude(round, [0, 1], own_deviation=share).upload(agreed)
        found = np.stack([update(round, upload) for upload in uploads])
        assert found == pytest.approx(0.01 + share * (honest - heard.mean(axis=0)), rel=1e-9)


def test_a_round_remembers_what_was_overheard_last(make_round) -> None:
    round = make_round(clients=8)
    first, same, other = (collude(round, attackers) for attackers in ([0, 1], [0, 1], [3, 4]))
    assert first.mean is same.mean
    assert other.mean.numpy() == pytest.approx(updates(round, [0, 1, 2, 5, 6, 7]).mean(axis=0), rel=1e-12)
    assert torch.equal(collude(round, [0, 1]).mean, first.mean)


def test_statistics_are_the_overheard_mean_and_counters_stay_whole(make_round) -> None:
    uploads = [dict(upload) for upload in make_round().uploads]
    for i, upload in enumerate(uploads):
        upload["1.running_mean"] = torch.full((4,), float(i))
        upload["1.num_batches_tracked"] = torch.tensor(10 * i)
    round = make_round(uploads=uploads)
    for upload in collude(round, [0, 5]).upload(torch.zeros(round.updates.size)):
        assert upload["1.running_mean"].tolist() == [2.5] * 4  # of 1, 2, 3, 4
        assert upload["1.num_batches_tracked"].dtype == torch.int64
        assert upload["1.num_batches_tracked"].item() == 25
        assert torch.equal(upload["0.weight"], round.global_model["0.weight"])


@pytest.mark.parametrize(("share", "expected"), [(0.5, [1.25, 3.75]), (1.0, [0.0, 5.0]), (3.0, [0.0, 5.0])])
def test_an_own_deviation_is_one_of_statistics_too_but_goes_no_further_than_ones_own(
    make_round, share, expected
) -> None:
    uploads = [dict(upload) for upload in make_round().uploads]
    for i, upload in enumerate(uploads):
        upload["1.running_mean"] = torch.full((4,), float(i))
    round = make_round(uploads=uploads)
    found = collude(round, [0, 5], own_deviation=share).upload(torch.zeros(round.updates.size))
    assert [upload["1.running_mean"].tolist() for upload in found] == [[value] * 4 for value in expected]


def test_own_images_come_from_the_attackers_in_equal_shares(make_round) -> None:
    images, _ = digits()
    local = {100 + i: [(images[40 * i : 40 * i + 40], torch.full((40,), i))] for i in range(6)}
    drawn, owners = own_images(make_round(local_data=local), [1, 4], 10, seeded_generator(0))
    assert drawn.shape == (10, 1, 8, 8)
    assert sorted(owners.tolist()) == [1] * 5 + [4] * 5
    del local[101]
    _, owners = own_images(make_round(local_data=local), [1, 4], 10, seeded_generator(0))
    assert owners.tolist() == [4] * 10
