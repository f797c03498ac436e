"""Krum, Multi-Krum and nearest-neighbor mixing against ByzFL, FedML and the definitions written out."""

from types import SimpleNamespace

import byzfl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.contract.settings import SettingsError, read_settings
from fedml_gradcam_ae.defenses.krum import Krum
from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
from fedml_gradcam_ae.defenses.nnm import NearestNeighborMixing
from fedml_gradcam_ae.defenses.shared.krum_scores import krum_scores, tolerated
from fedml_gradcam_ae.defenses.steps.mix_with_nearest import mixing_matrix
from vectors import aggregate, matrices, round_of, rows_of, samples


def naive_scores(rows, malicious):
    """The definition, one pair at a time."""
    clients = len(rows)
    scores = []
    for i in range(clients):
        distances = sorted(np.sum((rows[i] - rows[j]) ** 2) for j in range(clients) if j != i)
        scores.append(sum(distances[: max(1, clients - malicious - 2)]))
    return np.array(scores)


def tolerance(rows):
    return 1e-9 * max(1e-12, float(np.abs(rows).max()) ** 2 * rows.size)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(), counts=samples, share=st.sampled_from([0.0, 0.1, 0.2, 0.4]))
def test_krum_follows_a_client_with_the_least_score(rows, counts, share) -> None:
    round = round_of(rows, counts[: len(rows)])
    malicious = int(share * len(rows) + 1e-9)
    if malicious > tolerated(len(rows)):
        with pytest.raises(TooFewUploads):
            Krum(Krum.Settings(malicious=share)).judge(round)
        return
    verdict = Krum(Krum.Settings(malicious=share)).judge(round)
    exact = rows_of(round)
    expected = naive_scores(exact, malicious)
    assert np.allclose(verdict.scores, expected, rtol=1e-9, atol=tolerance(exact))
    chosen = verdict.weights.index(1.0)
    assert sum(verdict.weights) == 1
    assert expected[chosen] <= expected.min() + tolerance(exact)
    assert verdict.excluded == [position != chosen for position in range(len(rows))]
    flagged = [position for position, bad in enumerate(verdict.flagged) if bad]
    assert malicious - 1 <= len(flagged) <= malicious  # one less where all scores are tied with the chosen one
    others = [score for position, score in enumerate(expected) if position not in flagged]
    assert not flagged or expected[flagged].min() >= max(others) - tolerance(exact)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(least=5), malicious=st.integers(0, 3))
def test_multi_krum_keeps_the_least_scores_and_averages_without_sample_counts(rows, malicious) -> None:
    malicious = min(malicious, tolerated(len(rows)))
    round = round_of(rows, range(1, len(rows) + 1))
    verdict = MultiKrum(MultiKrum.Settings(malicious=malicious)).judge(round)
    exact = rows_of(round)
    expected = naive_scores(exact, malicious)
    kept = [position for position, out in enumerate(verdict.excluded) if not out]
    assert len(kept) == len(rows) - malicious
    assert expected[kept].max() <= np.sort(expected)[len(kept) - 1] + tolerance(exact)
    assert np.allclose(aggregate(round, verdict), exact[kept].mean(axis=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_byzfl_counts_one_more_neighbor_and_agrees_otherwise(dtype) -> None:
    """ByzFL's Krum(f) sums K - f - 1 distances, so it is ours with f - 1."""
    for seed in range(20):
        torch.manual_seed(seed)
        rows = torch.randn(9 + seed % 2, 40, dtype=dtype)
        round = round_of(rows)
        exact = torch.from_numpy(rows_of(round))
        ours = aggregate(round, Krum(Krum.Settings(malicious=2)).judge(round))
        assert np.allclose(ours, byzfl.Krum(f=3)(exact).numpy())
        kept = len(rows) - 3
        ours = aggregate(round, MultiKrum(MultiKrum.Settings(malicious=2, kept=kept)).judge(round))
        assert np.allclose(ours, byzfl.MultiKrum(f=3)(exact).numpy())


# One dimension, f = 1: with two neighbors (Blanchard et al.) the client at 1.0 has the least score, with three
# (ByzFL) the one at 2.1.
DISPUTED = torch.tensor([[0.0], [1.0], [2.1], [3.6], [50.0]]).double()


def test_where_the_libraries_disagree_we_follow_the_paper_as_fedml_does() -> None:
    from fedml.core.security.defense.krum_defense import KrumDefense

    rows = torch.cat([DISPUTED, torch.zeros(5, 1).double()], dim=1)
    round = round_of(rows)
    ours = Krum(Krum.Settings(malicious=1)).judge(round)
    assert ours.weights.index(1.0) == int(np.argmin(naive_scores(rows_of(round), 1))) == 1
    assert byzfl.Krum(f=1)(rows)[0].item() == pytest.approx(2.1)
    fedml = KrumDefense(SimpleNamespace(byzantine_client_num=1, krum_param_m=1))
    kept = fedml.defend_before_aggregation(list(zip(round.samples, round.uploads, strict=True)))
    assert kept[0][1] is round.uploads[1]


def test_a_clear_outlier_is_left_out_and_the_rejected_count_as_malicious() -> None:
    rows = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    rows[3] += 20
    judge = MultiKrum(MultiKrum.Settings(malicious=1)).judge
    assert [i for i, out in enumerate(judge(round_of(rows)).excluded) if out] == [3]
    assert not any(judge(round_of(rows, rejected={77: "NaN"})).excluded)


@pytest.mark.parametrize("clients", range(1, 12))
def test_few_uploads_are_no_error_with_the_usual_share_or_without_assumed_malicious_clients(clients) -> None:
    rows = torch.randn(clients, 5)
    for params in ({}, {"malicious": 0}):
        for rule in (Krum, MultiKrum, NearestNeighborMixing):
            settings = rule.Settings(**params, **({"rule": "krum"} if rule is NearestNeighborMixing else {}))
            verdict = rule(settings).judge(round_of(rows))
            assert sum(verdict.weights) == pytest.approx(1)
            assert all(np.isfinite(verdict.scores))


@pytest.mark.parametrize(
    ("rule", "params", "needed"),
    [
        (Krum, {"malicious": 2}, 7),
        (MultiKrum, {"malicious": 2}, 7),
        (MultiKrum, {"malicious": 1, "kept": 6}, 6),
        (NearestNeighborMixing, {"malicious": 2, "rule": "median"}, 5),
        (NearestNeighborMixing, {"malicious": 2, "rule": "krum"}, 7),
    ],
)
def test_fewer_uploads_than_the_guarantee_needs_are_said_to_be_too_few(rule, params, needed) -> None:
    judge = rule(rule.Settings(**params)).judge
    for clients in range(1, 9):
        round = round_of(torch.randn(clients, 5))
        if clients >= needed:
            judge(round)
            continue
        with pytest.raises(TooFewUploads) as error:
            judge(round)
        assert (error.value.needed, error.value.found) in ((needed, clients), (5, clients))
        assert str(clients) in str(error.value)


def test_a_rejected_upload_counts_as_one_of_the_malicious() -> None:
    round = round_of(torch.randn(4, 5), rejected={77: "NaN", 78: "NaN"})
    assert sum(MultiKrum(MultiKrum.Settings(malicious=2)).judge(round).weights) == pytest.approx(1)
    with pytest.raises(TooFewUploads):
        MultiKrum(MultiKrum.Settings(malicious=3)).judge(round)


@pytest.mark.parametrize(
    ("malicious", "clients", "fits"),
    [(2, 7, True), (2, 6, False), (0.2, 20, True), (0.4, 20, True), (0.45, 20, False)],
)
def test_too_many_assumed_malicious_clients_are_refused(malicious, clients, fits) -> None:
    check = Krum.Settings(malicious=malicious).check_clients
    if fits:
        check(clients)
    else:
        with pytest.raises(ValueError, match=r"malicious: \d of \d+ clients a round are too many.*at most \d here"):
            check(clients)


@settings(max_examples=60, deadline=None)
@given(rows=matrices(), malicious=st.integers(0, 2))
def test_each_is_mixed_with_its_nearest(rows, malicious) -> None:
    exact = rows.astype(np.float64)
    distances = ((exact[:, None] - exact) ** 2).sum(axis=2)
    mixing = mixing_matrix(torch.from_numpy(distances), malicious).numpy()
    kept = len(rows) - malicious
    assert np.allclose(mixing.sum(axis=1), 1)
    for client, row in enumerate(mixing):
        chosen = row > 0
        assert chosen.sum() == kept
        assert chosen[client]
        assert distances[client][chosen].max() <= np.sort(distances[client])[kept - 1]


@pytest.mark.parametrize(
    ("rule", "params", "oracle"),
    [
        ("trimmed_mean", {"beta": 0.2}, byzfl.TrMean(f=2)),
        ("median", {}, byzfl.Median()),
        ("krum", {"malicious": 1}, byzfl.Krum(f=2)),
        ("multi_krum", {"malicious": 1, "kept": 8}, byzfl.MultiKrum(f=2)),
        ("geometric_median", {"iterations": 2000, "smoothing": 0.1}, byzfl.GeometricMedian(nu=0.1, T=2000)),
        ("centered_clipping", {"tau": 3.0, "iterations": 4}, byzfl.CenteredClipping(L=4, tau=3.0)),
    ],
)
def test_mixing_in_front_of_another_rule_is_byzfls(rule, params, oracle) -> None:
    torch.manual_seed(3)
    round = round_of(torch.randn(10, 30, dtype=torch.float64))
    exact = torch.from_numpy(rows_of(round))
    settings = NearestNeighborMixing.Settings(malicious=2, rule=rule, rule_params=params)
    verdict = NearestNeighborMixing(settings).judge(round)
    assert np.allclose(aggregate(round, verdict), oracle(byzfl.NNM(f=2)(exact)).numpy(), atol=1e-6)


def test_mixing_hands_its_f_to_the_rule_and_answers_for_its_settings() -> None:
    settings = NearestNeighborMixing.Settings(malicious=3, rule="dnc", rule_params={"repetitions": 2})
    assert settings.rule_settings().malicious == 3
    assert settings.rule_settings().repetitions == 2
    with pytest.raises(SettingsError, match=r"Unknown key 'betta' in defense_params\.rule_params of trimmed_mean"):
        read_settings(NearestNeighborMixing.Settings, {"rule_params": {"betta": 0.1}}, "defense_params", "nnm")
    with pytest.raises(ValueError, match="too many"):
        NearestNeighborMixing.Settings(malicious=3, rule="krum").check_clients(8)


def test_a_client_whose_mixture_is_left_out_counts_where_others_were_mixed_with_it() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.1, 0.1], [9.0, 9.0]]).double()
    settings = NearestNeighborMixing.Settings(malicious=1, rule="krum")
    verdict = NearestNeighborMixing(settings).judge(round_of(rows))
    assert verdict.weights == pytest.approx([0.25] * 4 + [0])
    assert verdict.excluded == [False] * 4 + [True]
    assert [position for position, bad in enumerate(verdict.flagged) if bad] == [4]


def test_scores_of_one_client_are_zero() -> None:
    assert krum_scores(torch.zeros(1, 1), 0).tolist() == [0]
