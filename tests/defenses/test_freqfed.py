"""FreqFed against a cosine transform written as a matrix, and single linkage in place of HDBSCAN."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from fedml_gradcam_ae.contract.updates import Updates
from fedml_gradcam_ae.defenses.freqfed import FreqFed, low_frequencies, low_frequency_gram
from judging import check_awkward, matrix, round_of
from majority import last_majority
from tiny import tiny_cnn


def defense(**params) -> FreqFed:
    return FreqFed(FreqFed.Settings(**params))


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


def cosines(size: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix."""
    k, n = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    found = np.sqrt(2 / size) * np.cos(np.pi * k * (2 * n + 1) / (2 * size))
    found[0] /= np.sqrt(2)
    return found


def by_definition(table: np.ndarray, low: float) -> list[float]:
    rows, columns = table.shape
    spectrum = cosines(rows) @ table @ cosines(columns).T
    return [spectrum[i, j] for i in range(rows) for j in range(columns) if i / rows + j / columns < low]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (5, 8), (16, 12)])
@pytest.mark.parametrize("low", [0.1, 0.5, 0.9, 1.3, 2.0])
def test_the_low_frequencies_by_definition(shape, low) -> None:
    table = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(low_frequencies(table, low), by_definition(table, low), atol=1e-12)


def features(round, angles: str, low: float) -> np.ndarray:
    names = [name for name, _ in round.network.named_parameters()]
    rows = []
    for upload in round.uploads:
        row = []
        for name in names:
            tensor = upload[name].double().numpy()
            if angles == "updates":
                tensor = tensor - round.global_model[name].double().numpy()
            row += by_definition(tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor[None], low)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("clients", [3, 5, 6, 11, 20])
@pytest.mark.parametrize("angles", ["models", "updates"])
def test_a_verdict_is_the_majority_cluster_averaged_by_samples(clients, angles) -> None:
    samples = [1.0 + i for i in range(clients)]
    round = round_of(updates(clients, clients), tiny_cnn(), samples=samples)
    distances = squareform(pdist(features(round, angles, 0.5), "cosine"))
    kept = sorted(last_majority(distances))
    verdict = defense(angles=angles).judge(round)
    assert [i for i, out in enumerate(verdict.excluded) if not out] == kept
    assert clients // 2 < len(kept)
    assert verdict.weights == pytest.approx(
        [(i in kept) * n / sum(samples[j] for j in kept) for i, n in enumerate(samples)]
    )
    assert verdict.scores == pytest.approx(distances[:, kept].mean(1).tolist(), rel=1e-5)


@pytest.mark.parametrize("angles", ["models", "updates"])
def test_attackers_in_another_direction_are_left_out(angles) -> None:
    rows = updates(20)
    rows[[2, 5, 11]] = np.sign(np.random.default_rng(7).normal(size=218))
    verdict = defense(angles=angles).judge(round_of(rows, tiny_cnn()))
    assert all(verdict.excluded[i] for i in (2, 5, 11))
    assert sum(verdict.excluded) < 10


def test_all_frequencies_of_updates_have_the_updates_own_inner_products() -> None:
    """The transform is orthonormal."""
    round = round_of(updates(5), tiny_cnn().double())
    rows = matrix(round)
    np.testing.assert_allclose(low_frequency_gram(round.updates, 2.0, of_models=False), rows @ rows.T, rtol=1e-9)


def test_mixed_updates_are_transformed_as_they_are_mixed() -> None:
    uploads = [{"w": torch.tensor(row)} for row in ([1.0, 2.0, 3.0, 4.0], [3.0, 0.0, 1.0, 0.0])]
    mixed = Updates(uploads, {"w": torch.ones(4)}, ["w"]).mixed(torch.tensor([[0.5, 0.5]]))
    expected = np.array(by_definition(np.array([[2.0, 1.0, 2.0, 2.0]]), 0.5))
    assert float(low_frequency_gram(mixed, 0.5, of_models=True)) == pytest.approx(expected @ expected)


def test_awkward_rounds(make_round) -> None:
    check_awkward(defense, make_round)
    check_awkward(lambda: defense(angles="updates"), make_round)
