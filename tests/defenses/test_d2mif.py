"""D2MIF: the forest against scikit-learn's formula, Q-learning by hand, and a threshold that follows the accuracy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest

from fedml_gradcam_ae.defenses.d2mif import D2MIF, LEVELS, accuracy_of, best_action, isolation_scores, learn, projected
from judging import check_awkward, matrix, round_of
from tiny import digits, state_of, tiny_cnn


def defense(**params) -> D2MIF:
    return D2MIF(D2MIF.Settings(**{"test_images": 64, **params}))


def updates(clients: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.02 * (rng.normal(size=218) + rng.normal(size=(clients, 218)))


def test_a_projection_keeps_inner_products_in_the_mean() -> None:
    round = round_of(updates(8), tiny_cnn().double())
    rows = matrix(round)
    points = projected(round.updates.gram, 200_000, torch.Generator().manual_seed(0)).numpy()
    scale = np.sort(np.linalg.norm(rows, axis=1))[3]
    np.testing.assert_allclose(points @ points.T / 200_000, rows @ rows.T / scale**2, atol=0.02)


def test_a_projection_depends_on_no_choice_of_eigenvectors() -> None:
    """Two equal updates beside a third: a matrix with two equal eigenvalues, and one that is hardly another."""
    gram = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    found = [projected(g, 5, torch.Generator().manual_seed(0)) for g in (gram, gram + 1e-10 * torch.eye(3))]
    assert torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.allclose(found[0][0], found[0][1], atol=1e-7)


def test_a_long_update_leaves_the_others_their_digits() -> None:
    rows = updates(8)
    usual = projected(round_of(rows, tiny_cnn()).updates.gram, 5, torch.Generator().manual_seed(0))
    rows[2] *= 1e25
    long = projected(round_of(rows, tiny_cnn()).updates.gram, 5, torch.Generator().manual_seed(0))
    others = [0, 1, 3, 4, 5, 6, 7]
    assert torch.allclose(long[others], usual[others] * (long[0, 0] / usual[0, 0]), rtol=1e-3)


def test_scores_are_the_forests() -> None:
    points = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    generator = torch.Generator().manual_seed(5)
    seed = int(torch.randint(2**31 - 1, (), generator=torch.Generator().manual_seed(5)))
    forest = IsolationForest(n_estimators=100, max_samples=30, random_state=seed).fit(points)
    found = isolation_scores(torch.tensor(points), generator)
    np.testing.assert_allclose(found.numpy(), -forest.score_samples(points))


def test_scores_are_two_to_minus_the_mean_depth_over_c() -> None:
    """Isolated trees on a line, grown here: an outlier's and an inlier's expected depth."""
    rng, points = np.random.default_rng(0), np.array([0.0, 1.0, 2.0, 3.0, 40.0])

    def depths(found: dict[float, int], values: np.ndarray, depth: int) -> None:
        if len(values) == 1:
            found[values[0]] = depth
            return
        cut = rng.uniform(values.min(), values.max())
        depths(found, values[values <= cut], depth + 1)
        depths(found, values[values > cut], depth + 1)

    trees = []
    for _ in range(4000):
        found: dict[float, int] = {}
        depths(found, points, 0)
        trees.append([found[point] for point in points])
    usual = 2 * (np.log(4) + np.euler_gamma) - 2 * 4 / 5
    # The forest's trees have at most ceil(log2(5)) = 3 levels, where two points are left together with c(2) = 1.
    capped = [[min(depth, 3) + (depth > 3) for depth in tree] for tree in trees]
    expected = 2 ** (-np.mean(capped, axis=0) / usual)
    repeated = np.mean(
        [isolation_scores(torch.tensor(points)[:, None], torch.Generator().manual_seed(s)).numpy() for s in range(10)],
        axis=0,
    )
    np.testing.assert_allclose(repeated, expected, atol=0.02)


def test_outliers_are_left_out_and_the_rest_is_averaged_by_samples() -> None:
    rows = updates(20)
    rows[[3, 8]] *= -20
    samples = [1.0 + i for i in range(20)]
    verdict = defense().judge(round_of(rows, tiny_cnn(), samples=samples))
    assert [i for i, out in enumerate(verdict.excluded) if out] == [3, 8]
    left = np.array([0 if i in (3, 8) else samples[i] for i in range(20)])
    assert verdict.weights == pytest.approx((left / left.sum()).tolist())
    assert verdict.threshold == 0.6


def test_q_learning_by_hand() -> None:
    table = torch.zeros(2, 2, 2, dtype=torch.float64)
    table[1, 0] = torch.tensor([2.0, 4.0])
    table[0, 1, 1] = 1.0
    learn(table, (0, 1, 1), reward=-0.5, state=(1, 0), learning_rate=0.5, discount=0.25)
    assert table[0, 1].tolist() == [0, 1 + 0.5 * (-0.5 + 0.25 * 4 - 1)]
    assert best_action(torch.tensor([0.0, 0.0, 0.0])) == 1
    assert best_action(torch.tensor([3.0, 0.0, 3.0])) == 0
    assert best_action(torch.tensor([-1.0, 0.5, 1.0])) == 2


def other(round, number: int, seed: int):
    """The same uploads from another global model, whose accuracy is another one."""
    torch.manual_seed(seed)
    network = tiny_cnn()
    moved = {n: t + 0.5 * torch.randn_like(t) if "weight" in n else t for n, t in state_of(network).items()}
    return replace(round, number=number, global_model=moved)


def by_hand(rounds, seed: int, exploration: float) -> list[float]:
    """The thresholds of these rounds, by Q-learning in a dictionary."""
    from fedml_gradcam_ae.networks.images import seeded_generator

    images, labels = digits()
    q: dict[tuple[int, int, int], float] = {}
    level, last, decision, found = 5, None, None, []
    for round in rounds:
        network = tiny_cnn().eval()
        network.load_state_dict(round.global_model)
        with torch.no_grad():
            accuracy = float((network(images[:64]).argmax(1) == labels[:64]).double().mean())
        trend = 0
        if last is not None:
            trend = int(np.sign(accuracy - last))
            best = max(q.get((level, trend, a), 0.0) for a in (-1, 0, 1))
            q[decision] = q.get(decision, 0.0) + 0.1 * (accuracy - last + 0.9 * best - q.get(decision, 0.0))
        action = max((0, -1, 1), key=lambda a, state=(level, trend): q.get((*state, a), 0.0))
        generator = seeded_generator(seed, 3, round.number)
        if float(torch.rand((), generator=generator, dtype=torch.float64)) < exploration:
            action = int(torch.randint(3, (), generator=generator)) - 1
        last, decision = accuracy, (level, trend, action)
        level = min(max(level + action, 0), 15)
        found.append(round_to(0.5 + 0.02 * level))
    return found


def round_to(value: float) -> float:
    return float(f"{value:.2f}")


@pytest.mark.parametrize("exploration", [0.0, 0.5, 1.0])
def test_the_threshold_follows_q_learning(exploration) -> None:
    round = round_of(updates(6), tiny_cnn())
    rounds = [other(round, number, number) for number in range(1, 25)]
    judge = defense(exploration=exploration, trees=1)
    found = [judge.judge(each).threshold for each in rounds]
    assert found == by_hand(rounds, 0, exploration)
    assert exploration == 0 or len(set(found)) > 2
    assert set(found) <= set(LEVELS)


def test_a_restart_goes_on_where_it_stopped() -> None:
    round = round_of(updates(6), tiny_cnn())
    rounds = [other(round, number, number) for number in range(1, 20)]
    through, fresh, restored = (defense(exploration=1.0, trees=3) for _ in range(3))
    for each in rounds[:7]:
        through.judge(each)
    restored.restore(through.state())
    expected = [through.judge(each) for each in rounds[7:]]
    found = [restored.judge(each) for each in rounds[7:]]
    assert [v.threshold for v in found] == [v.threshold for v in expected]
    assert [v.scores for v in found] == [v.scores for v in expected]
    assert [fresh.judge(each).threshold for each in rounds[7:]] != [v.threshold for v in expected]


def test_accuracy_is_the_share_of_right_answers() -> None:
    images, labels = digits()
    network = tiny_cnn().eval()
    with torch.no_grad():
        expected = float((network(images[:300]).argmax(1) == labels[:300]).double().mean())
    assert accuracy_of(network, state_of(network), images[:300], labels[:300]) == pytest.approx(expected)


def test_a_threshold_between_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"delta must be one of 0\.5, 0\.52, \.\.\., 0\.8"):
        defense(delta=0.61)


def test_empty_test_data_are_refused_with_what_they_are_for(make_round) -> None:
    with pytest.raises(ValueError, match=r"accuracy on the server's test data.*empty"):
        defense().prepare(tiny_cnn(), [])


def test_awkward_rounds(make_round) -> None:
    check_awkward(lambda: defense(trees=3), make_round)
