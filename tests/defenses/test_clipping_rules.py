"""Norm clipping, weak differential privacy and CRFL against the papers' formulas in numpy."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae.defenses.crfl import CRFL, NoisyModels
from fedml_gradcam_ae.defenses.norm_clipping import NormClipping
from fedml_gradcam_ae.defenses.shared.noise import with_noise
from fedml_gradcam_ae.defenses.weak_dp import WeakDP
from fedml_gradcam_ae.networks.images import seeded_generator
from tiny import digits, state_of, tiny_cnn
from vectors import aggregate, round_of, rows_of, vector_of

ROWS = np.random.default_rng(0).normal(size=(7, 20)) * np.linspace(0.5, 6, 7)[:, None]
SAMPLES = np.arange(1.0, 8.0)


def crfl(**params) -> CRFL:
    return CRFL(CRFL.Settings(**params))


@pytest.mark.parametrize("bound", [None, 2.0, 1e6])
def test_the_mean_of_clipped_updates_is_weighted_by_samples(bound) -> None:
    round = round_of(ROWS, SAMPLES)
    exact = rows_of(round)
    norms = np.linalg.norm(exact, axis=1)
    limit = np.median(norms) if bound is None else bound
    expected = SAMPLES / SAMPLES.sum() @ (exact / np.maximum(1, norms / limit)[:, None])
    verdict = NormClipping(NormClipping.Settings(bound=bound)).judge(round)
    assert np.allclose(aggregate(round, verdict), expected)
    assert verdict.scores == pytest.approx(norms.tolist())
    assert verdict.excluded is None


def test_a_huge_update_reaches_no_further_than_the_bound() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3e38, 0.0]])
    verdict = NormClipping(NormClipping.Settings()).judge(round_of(rows))
    assert aggregate(round_of(rows), verdict) == pytest.approx([2 / 3, 1 / 3], rel=1e-5)


def test_weak_dp_is_norm_clipping_with_noise_of_the_given_deviation() -> None:
    rows = np.random.default_rng(1).normal(size=(5, 20_000))
    round = round_of(rows)
    quiet = NormClipping(NormClipping.Settings(bound=9.0)).judge(round)
    verdicts = [
        WeakDP(WeakDP.Settings(bound=9.0, **params)).judge(replace(round, number=number))
        for params, number in (({"noise": 0.0}, 1), ({}, 1), ({}, 1), ({}, 2), ({"seed": 1}, 1))
    ]
    noise = [aggregate(round, verdict) - aggregate(round, quiet) for verdict in verdicts]
    assert np.array_equal(noise[0], np.zeros(20_000))
    assert noise[1].std() == pytest.approx(0.025, rel=0.02)
    assert abs(noise[1].mean()) < 0.001
    assert np.array_equal(noise[1], noise[2])
    assert abs(np.corrcoef(noise[1], noise[3])[0, 1]) < 0.05
    assert abs(np.corrcoef(noise[1], noise[4])[0, 1]) < 0.05
    assert torch.equal(verdicts[1].model["statistic"], quiet.model["statistic"])
    assert verdicts[1].scores == quiet.scores


@pytest.mark.parametrize(("params", "number", "limit"), [
    ({"start": 1.0, "growth": 0.25}, 3, 1.75),
    ({"start": 1.0, "growth": 0.25, "bound": 1.5}, 3, 1.5),
    ({"start": 1e6}, 1, None),
])  # fmt: skip
def test_crfl_clips_the_averaged_model_to_a_length_that_grows(params, number, limit) -> None:
    round = round_of(ROWS, SAMPLES, number=number)
    models = np.stack([vector_of(upload) for upload in round.uploads])
    mean = SAMPLES / SAMPLES.sum() @ models
    expected = mean if limit is None else mean * limit / np.linalg.norm(mean)
    model = crfl(**params, noise=0.0).judge(round).model
    assert np.allclose(vector_of(model), expected)
    assert model["statistic"].tolist() == pytest.approx([SAMPLES / SAMPLES.sum() @ np.arange(7)] * 2)


def test_crfl_starts_from_the_length_of_the_first_model_also_after_a_restart() -> None:
    first = round_of(100 * ROWS)
    length = np.linalg.norm(vector_of(first.global_model))
    defense = crfl(growth=0.5, noise=0.0)
    assert np.linalg.norm(vector_of(defense.judge(first).model)) == pytest.approx(length + 0.5)
    again = crfl(growth=0.5, noise=0.0)
    again.restore(defense.state())
    later = round_of(100 * ROWS, number=4, global_model=first.uploads[2])
    for server in (defense, again):
        assert np.linalg.norm(vector_of(server.judge(later).model)) == pytest.approx(length + 2)


def test_crfls_noise_is_on_the_model_and_not_carried_by_the_vote() -> None:
    round = round_of(np.random.default_rng(1).normal(size=(5, 20_000)))
    quiet, noised = crfl(noise=0.0).judge(round).model, crfl(noise=0.1).judge(round).model
    noise = vector_of(noised) - vector_of(quiet)
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    defense = crfl(noise=0.1, votes=2)
    defense.judge(round)
    assert np.array_equal(vector_of(defense.state()["clipped"]), vector_of(quiet))


def test_the_vote_is_that_of_noised_copies_of_the_clipped_model(make_round) -> None:
    network, images = tiny_cnn(), digits()[0][:60]
    defense = crfl(noise=0.3, votes=7, seed=3)
    assert defense.predictor(network) is network
    round = make_round(number=5)
    defense.judge(round)
    clipped = defense.state()["clipped"]
    ballots = []
    for number in range(7):
        copy = tiny_cnn().eval()
        copy.load_state_dict(with_noise(clipped, round.parameters, {}, 0.3, seeded_generator(3, 0, number)))
        with torch.no_grad():
            ballots.append(copy(images).argmax(dim=1).tolist())
    expected = []
    for votes in zip(*ballots, strict=True):
        counts = Counter(votes)
        expected.append(min(label for label, count in counts.items() if count == max(counts.values())))
    assert len({tuple(ballot) for ballot in ballots}) > 1
    network.eval()
    with torch.no_grad():
        assert defense.predictor(network)(images).argmax(dim=1).tolist() == expected
    again = crfl(noise=0.3, votes=7, seed=3)
    again.restore(defense.state())
    with torch.no_grad():
        assert torch.equal(again.predictor(network)(images), defense.predictor(network)(images))


def test_noised_copies_are_the_same_each_time_they_are_read() -> None:
    copies = NoisyModels(state_of(tiny_cnn()), ["5.bias"], {}, 0.1, 3, seed=0)
    first, second = ([model["5.bias"] for model in copies] for _ in range(2))
    assert len(first) == 3
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_tied_weights_have_one_noise() -> None:
    model = {"0.weight": torch.zeros(2, 2), "1.weight": torch.zeros(2, 2)}
    (copy,) = NoisyModels(model, ["0.weight"], {"1.weight": "0.weight"}, 0.1, 1, seed=0)
    assert torch.equal(copy["0.weight"], copy["1.weight"])
    assert (copy["0.weight"] != 0).all()
