"""DeepSight against numpy, each model loaded alone and scikit-learn on the features themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN
from sklearn.metrics.pairwise import cosine_distances
from torch import nn

from fedml_gradcam_ae.defenses.deepsight import DeepSight, cluster, energies, threshold_exceedings
from fedml_gradcam_ae.networks.images import seeded_generator
from judging import check_awkward, matrix, round_of, vector
from tiny import digits, tiny_cnn

SMALL = {"noise_inputs": 40}
WEIGHT = slice(218 - 170, 218 - 10)  # where the output layer's (10, 16) weight is among tiny_cnn's parameters
BIAS = slice(218 - 10, 218)


def defense(**params) -> DeepSight:
    return DeepSight(DeepSight.Settings(**SMALL | params))


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


def narrow(clients: int = 20, attackers=(1, 4, 6, 9, 13, 17)):
    """Some clients that change one class alone, all in the same way."""
    rows = updates(clients)
    rng = np.random.default_rng(1)
    one = np.zeros(218)
    one[WEIGHT][:16] = 0.3 * rng.normal(size=16)
    one[BIAS][0] = 0.4
    for attacker in attackers:
        rows[attacker] = one + 1e-4 * rng.normal(size=218)
    return rows


def energies_by_the_paper(rows: np.ndarray) -> np.ndarray:
    changes = np.abs(rows[:, BIAS]) + np.abs(rows[:, WEIGHT]).reshape(len(rows), 10, 16).sum(2)
    return changes**2 / (changes**2).sum(1, keepdims=True)


def ratios_by_the_paper(round, seed: int = 0, count: int = 40) -> list[np.ndarray]:
    def probabilities(model, images):
        network = tiny_cnn().to(images)
        network.load_state_dict(model)
        with torch.no_grad():
            scores = network.eval()(images).double().numpy()
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    found = []
    for index in range(3):
        images = torch.rand(count, 1, 8, 8, generator=seeded_generator(seed, round.number, index))
        usual = probabilities(round.global_model, images)
        found.append(np.stack([(probabilities(u, images) / (usual + 1e-6)).mean(0) for u in round.uploads]))
    return found


def together(labels: np.ndarray) -> np.ndarray:
    same = (labels[:, None] == labels) & (labels >= 0)
    np.fill_diagonal(same, True)
    return same


def by_the_paper(round, smallest):
    """The clients' shares of suspicious members in their clusters, and the aggregate."""
    rows = matrix(round)
    shares = energies_by_the_paper(rows)
    sizes = {"min_samples": 4, "min_cluster_size": smallest}
    apart = [1.0 - together(HDBSCAN(**sizes, copy=True).fit(shares).labels_)]
    of_ratios = [1.0 - together(HDBSCAN(**sizes, copy=True).fit(r).labels_) for r in ratios_by_the_paper(round)]
    apart.append(np.mean(of_ratios, axis=0))
    cosines = np.clip(cosine_distances(rows[:, BIAS]), 0, None)
    apart.append(1.0 - together(HDBSCAN(**sizes, metric="precomputed", copy=True).fit(cosines).labels_))
    last = HDBSCAN(**sizes, metric="precomputed", allow_single_cluster=True, copy=True).fit(np.mean(apart, axis=0))
    exceedings = (shares > 0.1 * shares.max(1, keepdims=True)).sum(1)
    suspicious = exceedings <= np.median(exceedings) / 2
    members = together(last.labels_)
    found = np.array([suspicious[row].mean() for row in members])
    kept = rows[found < 1 / 3]
    norms = np.linalg.norm(rows, axis=1)
    factors = np.minimum(1, np.median(norms) / np.linalg.norm(kept, axis=1))
    return found, (kept * factors[:, None]).mean(0)


ROWS = {"9": updates(9), "20": updates(20, 3), "narrow": narrow(), "two": narrow(12, (2, 5))}


@pytest.mark.parametrize("smallest", [4, 5])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_verdict_is_the_papers(rows, smallest) -> None:
    round = round_of(rows, tiny_cnn(), samples=[1.0 + i for i in range(len(rows))])
    shares, mean = by_the_paper(round, smallest)
    verdict = defense(min_cluster_size=smallest).judge(round)
    assert verdict.scores == pytest.approx(shares.tolist())
    assert verdict.excluded == (shares >= 1 / 3).tolist()
    np.testing.assert_allclose(vector(round, verdict.model), mean, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("clients", "attackers"), [(20, [1, 4, 6, 9, 13, 17]), (20, [1, 4, 6, 9]), (10, [1, 4, 6, 9])])
def test_clients_that_change_one_class_are_left_out_and_nobody_else(clients, attackers) -> None:
    verdict = defense().judge(round_of(narrow(clients, attackers), tiny_cnn()))
    assert [i for i, out in enumerate(verdict.excluded) if out] == attackers


def test_without_an_attack_nobody_is_left_out() -> None:
    assert not any(defense().judge(round_of(updates(20), tiny_cnn())).excluded)


def test_energies_and_exceedings_by_hand() -> None:
    center = {"w": torch.zeros(2, 2), "b": torch.zeros(2)}
    uploads = [{"w": torch.tensor([[1.0, -1.0], [0.0, 0.0]]), "b": torch.tensor([-1.0, 1.0])}, center]
    found = energies(uploads, center, "w", "b")
    assert found.tolist() == [pytest.approx([0.9, 0.1]), [0, 0]]  # 3^2 and 1^2
    assert threshold_exceedings(found).tolist() == [1, 0]
    many = torch.zeros(1, 200, dtype=torch.float64)
    many[0, :3] = torch.tensor([1.0, 0.011, 0.009])  # of the largest, 0.01 counts more than 1 / 200
    assert threshold_exceedings(many).tolist() == [2]


def test_the_noise_is_the_seeds_and_the_rounds_own() -> None:
    round = round_of(narrow(), tiny_cnn())
    seen = []

    def noise(judge, number):
        judge.judge(replace(round, number=number))
        return torch.cat(list(judge._noise(judge._images, number, 0)))

    state = torch.get_rng_state()
    seen = [noise(defense(), 1), noise(defense(), 1), noise(defense(), 2), noise(defense(seed=1), 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])
    assert seen[0].shape == (40, 1, 8, 8)
    assert 0 <= seen[0].min() < 0.1 < 0.9 < seen[0].max() < 1


def test_outliers_are_clusters_of_their_own() -> None:
    points = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 5.0, 5.1, 5.2, 5.3, 5.4, 60.0, 99.0])
    labels = cluster((points - points[:, None]).abs(), smallest=5)
    assert labels[:10] == [0] * 5 + [1] * 5
    assert len(set(labels)) == 4
    assert cluster(torch.zeros(1, 1), smallest=4) == [0]


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (nn.Linear(4, 3, bias=False), r"\(3, \.\.\.\) and \(3,\) here; found 3\.weight \(3, 4\)\."),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), r"found 3\.1\.weight \(3,\), 3\.1\.bias \(3,\)"),
        (nn.Linear(4, 1, bias=False), r"\(2, \.\.\.\) and \(2,\) here; found 3\.weight \(1, 4\)"),
    ],
)
def test_a_network_without_such_an_output_layer_is_refused(last, found) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    with pytest.raises(ValueError, match=r"one row per class and a bias.*" + found):
        defense().prepare(network, [digits()])


def test_an_output_layer_that_is_a_convolution_is_taken(make_round) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    verdict = defense().judge(make_round(network=network))
    assert len(verdict.scores) == 6


def test_empty_test_data_are_refused_with_what_they_are_for(make_round) -> None:
    with pytest.raises(ValueError, match=r"shape of the server's test data.*empty"):
        defense().judge(make_round(test_data=[]))


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(noise_inputs=3), make_round)
