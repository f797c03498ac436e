from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from fedml_gradcam_ae.defenses.flame import FLAME, outside_majority
from judging import check_awkward, matrix, round_of, vector
from majority import last_majority
from tiny import tiny_cnn


def defense(**params) -> FLAME:
    return FLAME(FLAME.Settings(**{"noise": 0.0, **params}))


def models(round) -> np.ndarray:
    names = [name for name, _ in round.network.named_parameters()]
    flat = np.concatenate([round.global_model[name].double().numpy().ravel() for name in names])
    return flat + matrix(round)


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


@pytest.mark.parametrize("clients", [3, 5, 6, 11, 20, 21])
@pytest.mark.parametrize("angles", ["models", "updates"])
def test_a_verdict_is_single_linkage_then_clipping_then_the_mean(clients, angles) -> None:
    samples = [1.0 + i for i in range(clients)]
    round = round_of(updates(clients, clients), tiny_cnn(), samples=samples)
    rows = matrix(round)
    distances = squareform(pdist(models(round) if angles == "models" else rows, "cosine"))
    kept = sorted(last_majority(distances))
    norms = np.linalg.norm(rows, axis=1)
    clipped = rows * np.minimum(1, np.median(norms) / norms)[:, None]
    verdict = defense(angles=angles).judge(round)
    assert [i for i, out in enumerate(verdict.excluded) if not out] == kept
    assert clients // 2 < len(kept)
    np.testing.assert_allclose(vector(round, verdict.model), clipped[kept].mean(0), rtol=1e-3, atol=1e-6)
    assert verdict.scores == pytest.approx(distances[:, kept].mean(1).tolist(), rel=1e-3)


@pytest.mark.parametrize("angles", ["models", "updates"])
@pytest.mark.parametrize("size", [1.0, -3.0, 1e30])
def test_attackers_in_another_direction_are_left_out_however_long_their_updates(angles, size) -> None:
    rows = updates(20)
    rows[[2, 5, 11]] = size * np.sign(np.random.default_rng(7).normal(size=218))
    round = round_of(rows, tiny_cnn())
    verdict = defense(angles=angles).judge(round)
    assert all(verdict.excluded[i] for i in (2, 5, 11))
    assert sum(verdict.excluded) < 10
    assert min(verdict.scores[i] for i in (2, 5, 11)) > max(
        s for i, s in enumerate(verdict.scores) if i not in (2, 5, 11)
    )


def test_updates_are_clipped_to_the_median_of_all(make_round) -> None:
    direction = np.random.default_rng(0).normal(size=218)
    direction /= np.linalg.norm(direction)
    lengths = np.array([1.0, 2.0, 3.0, 4.0, 500.0])
    round = round_of(lengths[:, None] * direction, tiny_cnn())
    verdict = defense(angles="updates").judge(round)
    kept = ~np.array(verdict.excluded)
    found = vector(round, verdict.model)
    np.testing.assert_allclose(found, np.minimum(lengths, 3)[kept].mean() * direction, rtol=1e-4, atol=1e-6)


def test_noise_is_lambda_median_lengths_on_trained_weights_alone() -> None:
    round = round_of(updates(9), tiny_cnn())
    median = np.median(np.linalg.norm(matrix(round), axis=1))
    clean = defense().judge(round)
    noisy = defense(noise=0.5).judge(round)
    difference = vector(round, noisy.model) - vector(round, clean.model)
    assert difference.std() == pytest.approx(0.5 * median, rel=0.15)
    assert abs(difference.mean()) < 0.15 * median
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(noisy.model[name], clean.model[name])


def test_noise_is_the_seeds_and_the_rounds_own() -> None:
    round = round_of(updates(9), tiny_cnn())
    state = torch.get_rng_state()
    first = vector(round, defense(noise=0.1).judge(round).model)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(first, vector(round, defense(noise=0.1).judge(round).model))
    for other in (defense(noise=0.1, seed=1).judge(round), defense(noise=0.1).judge(replace(round, number=2))):
        assert not np.array_equal(first, vector(round, other.model))


def test_two_groups_of_one_size_are_both_kept() -> None:
    distances = torch.ones(6, 6, dtype=torch.float64)
    distances[:3, :3] = distances[3:, 3:] = 0.1
    assert outside_majority(distances.fill_diagonal_(0)) == [False] * 6
    distances = torch.ones(7, 7, dtype=torch.float64)
    distances[:4, :4] = 0.1
    assert outside_majority(distances.fill_diagonal_(0)) == [False] * 4 + [True] * 3


def test_batch_norms_statistics_neither_count_nor_get_clipped() -> None:
    round = round_of(updates(5), tiny_cnn(), samples=[1.0, 2.0, 3.0, 4.0, 5.0])
    before = defense().judge(round)
    uploads = [{**upload, "1.running_mean": torch.full((4,), 100.0 * i)} for i, upload in enumerate(round.uploads)]
    verdict = defense().judge(replace(round, uploads=uploads))
    assert verdict.excluded == before.excluded
    kept = ~np.array(verdict.excluded)
    expected = np.average(100 * np.arange(5)[kept], weights=np.arange(1, 6)[kept])
    assert verdict.model["1.running_mean"].tolist() == pytest.approx([expected] * 4)


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(noise=0.001), make_round)
    check_awkward(lambda: defense(angles="updates"), make_round)
