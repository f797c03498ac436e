import numpy as np
import pytest
import torch
from sklearn.svm import OneClassSVM

from fedml_gradcam_ae.defenses.faa_dl import FAADL, outlyingness
from judging import check_awkward, matrix, round_of
from tiny import tiny_cnn


def defense(**params) -> FAADL:
    return FAADL(FAADL.Settings(**params))


def squared_distances(points: np.ndarray) -> torch.Tensor:
    return torch.tensor(((points[:, None] - points) ** 2).sum(2))


@pytest.mark.parametrize("nu", [0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("gamma", [0.05, 1.0])
@pytest.mark.parametrize("clients", [6, 7])
def test_it_is_scikit_learns_one_class_svm_on_the_raw_updates(make_round, nu, gamma, clients) -> None:
    round = make_round(clients)
    rows = matrix(round)
    theirs = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu, tol=1e-9).fit(rows)
    verdict = defense(nu=nu, gamma=gamma).judge(round)
    assert verdict.scores == pytest.approx((-theirs.decision_function(rows)).tolist(), abs=1e-6)
    decisions = theirs.decision_function(rows)
    clear = np.abs(decisions) > 1e-5
    assert np.array_equal(np.array(verdict.flagged)[clear], (theirs.predict(rows) < 0)[clear])
    assert verdict.flagged == [score > verdict.threshold for score in verdict.scores]


def test_the_scale_is_scikit_learns_where_coordinates_have_no_drift() -> None:
    points = np.random.default_rng(0).normal(size=(12, 40)) * np.linspace(0.2, 2, 12)[:, None]
    points -= points.mean(0)
    theirs = OneClassSVM(kernel="rbf", gamma="scale", nu=0.4, tol=1e-9).fit(points)
    found = outlyingness(squared_distances(points), 0.4, "scale")
    assert found.tolist() == pytest.approx((-theirs.decision_function(points)).tolist(), abs=1e-6)
    assert np.ptp(found.numpy()) > 0.1
    drifted = outlyingness(squared_distances(points + 5 * np.arange(40)), 0.4, "scale")
    assert drifted.tolist() == pytest.approx(found.tolist(), abs=1e-6)


@pytest.mark.parametrize("attackers", [1, 2, 4])
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_few_identical_outliers_are_caught(attackers, size) -> None:
    rows = 0.01 * np.random.default_rng(attackers).normal(size=(20, 218))
    rows[:attackers] = size
    verdict = defense().judge(round_of(rows, tiny_cnn()))
    assert verdict.excluded[:attackers] == [True] * attackers
    assert min(verdict.scores[:attackers]) > max(verdict.scores[attackers:])
    assert sum(verdict.excluded) <= 10  # nu bounds the share that is left out


def test_nu_bounds_how_many_are_left_out() -> None:
    rows = 0.01 * np.random.default_rng(0).normal(size=(20, 218))
    for nu in (0.1, 0.25, 0.5):
        assert sum(defense(nu=nu).judge(round_of(rows, tiny_cnn())).excluded) <= nu * 20


def test_benign_clients_alone_are_kept() -> None:
    """Updates of one size in directions of their own are all on the boundary, and none outside."""
    rng = np.random.default_rng(5)
    rows = 0.01 * (rng.normal(size=218) + rng.normal(size=(20, 218)))
    assert not any(defense().judge(round_of(rows, tiny_cnn())).excluded)


def test_weights_are_by_samples_among_the_kept(make_round) -> None:
    round = make_round(7)
    far = {name: t + 1 if t.is_floating_point() else t for name, t in round.uploads[2].items()}
    round = make_round(7, uploads=[*round.uploads[:2], far, *round.uploads[3:]])
    verdict = defense().judge(round)
    kept = np.where(verdict.excluded, 0, round.samples)
    assert verdict.excluded[2]
    assert sum(verdict.excluded) < 7
    assert verdict.weights == pytest.approx((kept / kept.sum()).tolist())


def test_awkward_rounds(make_round) -> None:
    for params in ({}, {"nu": 0.01}, {"nu": 0.999999}, {"gamma": 1e-300}, {"gamma": 1e300}):
        check_awkward(lambda params=params: defense(**params), make_round)


def test_everybody_is_kept_where_all_are_alike(make_round) -> None:
    verdict = defense().judge(make_round(uploads=[make_round().uploads[0]] * 6))
    assert verdict.scores == [0] * 6
    assert not any(verdict.excluded)


def test_a_gamma_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be above 0 or `scale`"):
        defense(gamma=0.0)
