"""Steps in front of a rule: clipping, mixing and bucketing against ByzFL and the definitions written out."""

from dataclasses import replace

import byzfl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.contract.settings import AssumesMalicious, SettingsError, read_settings
from fedml_gradcam_ae.defenses.arc import AdaptiveRobustClipping
from fedml_gradcam_ae.defenses.bucketing import Bucketing
from fedml_gradcam_ae.defenses.centered_clipping import CenteredClipping
from fedml_gradcam_ae.defenses.krum import Krum
from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
from fedml_gradcam_ae.defenses.shared.in_front import carry_back
from fedml_gradcam_ae.defenses.steps.average_buckets import BucketingSettings, average_buckets, draw_buckets
from fedml_gradcam_ae.defenses.steps.clip_adaptively import clip_adaptively
from fedml_gradcam_ae.defenses.steps.clip_norms import NormClippingSettings, clip_norms
from fedml_gradcam_ae.defenses.steps.mix_with_nearest import mix_with_nearest
from fedml_gradcam_ae.networks.images import seeded_generator
from vectors import aggregate, matrices, round_of, rows_of, vector_of


def arc(**params) -> AdaptiveRobustClipping:
    return AdaptiveRobustClipping(AdaptiveRobustClipping.Settings(**params))


def bucketing(**params) -> Bucketing:
    return Bucketing(Bucketing.Settings(**params))


def updates_of(round) -> np.ndarray:
    return torch.cat(list(round.updates.blocks()), dim=1).numpy()


def check_the_same_in_every_view(round, expected) -> None:
    """Blocks, products, samples, columns, combinations and the uploads themselves tell of the same updates."""
    close = {"rtol": 1e-9, "atol": 1e-9 * max(1.0, np.abs(expected).max() ** 2)}
    assert np.allclose(updates_of(round), expected, **close)
    assert np.allclose(round.updates.gram.numpy(), expected @ expected.T, **close)
    columns = torch.arange(0, expected.shape[1], 2)
    assert np.allclose(round.updates.sample(columns).numpy(), expected[:, ::2], **close)
    center = vector_of(round.global_model)
    largest = vector_of(round.updates.columnwise(lambda values: values.amax(0)))
    assert np.allclose(largest - center, expected.max(0), **close)
    coefficients = torch.linspace(0.1, 0.5, len(expected), dtype=torch.float64)
    assert np.allclose(
        vector_of(round.updates.combine(coefficients)) - center, coefficients.numpy() @ expected, **close
    )
    assert np.allclose(np.stack([vector_of(upload) for upload in round.uploads]) - center, expected, **close)
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in round.global_model.items()}
    moved = torch.cat(list(round.updates.recentered(other).blocks()), dim=1).numpy()
    assert np.allclose(moved, expected - 1, **close)


@settings(max_examples=40, deadline=None)
@given(rows=matrices(), malicious=st.integers(0, 2), gram_first=st.booleans())
def test_arc_clips_as_byzfl_does(rows, malicious, gram_first) -> None:
    malicious = min(malicious, (len(rows) - 1) // 2)
    round = round_of(rows.astype(np.float64))
    exact = rows_of(round)
    if gram_first:
        round.updates.gram  # noqa: B018 - from here on it is known, and is scaled with the updates
    expected = np.asarray(byzfl.ARC(f=malicious)(exact.copy()))  # it clips in place
    check_the_same_in_every_view(clip_adaptively(round, AssumesMalicious(malicious=malicious)), expected)


@pytest.mark.parametrize("bound", [None, 0.5, 3.0])
def test_norms_are_clipped_as_the_paper_writes_it(bound) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 9)) * np.arange(1, 7)[:, None]
    round = round_of(rows)
    exact = rows_of(round)
    norms = np.linalg.norm(exact, axis=1)
    limit = np.median(norms) if bound is None else bound
    expected = exact / np.maximum(1, norms / limit)[:, None]
    check_the_same_in_every_view(clip_norms(round, NormClippingSettings(bound=bound)), expected)


def test_steps_can_be_chained_in_any_order() -> None:
    rows = np.random.default_rng(1).normal(size=(9, 12)) * np.linspace(0.5, 4, 9)[:, None]
    round = round_of(rows)
    exact, two = rows_of(round), AssumesMalicious(malicious=2)
    clipped = np.asarray(byzfl.ARC(f=2)(exact.copy()))
    check_the_same_in_every_view(mix_with_nearest(clip_adaptively(round, two), two), byzfl.NNM(f=2)(clipped))
    mixed = np.asarray(byzfl.NNM(f=2)(exact))
    both = clip_adaptively(mix_with_nearest(round, two), two)
    check_the_same_in_every_view(both, np.asarray(byzfl.ARC(f=2)(mixed.copy())))
    buckets = draw_buckets(9, 2, seeded_generator(0, 1))
    norms = np.linalg.norm(exact, axis=1)
    short = exact * np.minimum(1, np.median(norms) / norms)[:, None]
    expected = np.stack([short[bucket].mean(axis=0) for bucket in buckets])
    last = average_buckets(clip_norms(round, NormClippingSettings()), BucketingSettings())
    check_the_same_in_every_view(last, expected)
    verdict = carry_back(MultiKrum(MultiKrum.Settings(malicious=1)).judge(last), last, round)
    assert [len(lists) for lists in (verdict.excluded, verdict.flagged, verdict.scores)] == [9] * 3
    kept = [number for number, bucket in enumerate(buckets) if not verdict.excluded[bucket[0]]]
    assert np.allclose(aggregate(round, verdict), expected[kept].mean(axis=0))


def test_statistics_are_pulled_as_the_weights_are() -> None:
    round = round_of(torch.tensor([[2.0, 0.0], [0.0, 4.0], [8.0, 0.0]]))  # of the statistic 0, 1 and 2
    clipped = clip_norms(round, NormClippingSettings(bound=2.0))
    assert [float(upload["statistic"][0]) for upload in clipped.uploads] == [0, 0.5, 0.5]
    assert clipped.updates.columnwise(lambda values: values.amax(0))["statistic"].tolist() == [0.5, 0.5]


def test_clipped_uploads_are_bounded_before_they_are_clipped(make_round) -> None:
    uploads = [dict(upload) for upload in make_round(6).uploads]
    uploads[2]["5.bias"] = uploads[2]["5.bias"] + 1e6
    round = make_round(6, uploads=uploads)
    clipped = clip_norms(round, NormClippingSettings())
    factor = float(clipped.part_of.mixing[2, 2])
    step = round.bounded.uploads[2]["5.bias"] - round.global_model["5.bias"]
    found = clipped.bounded.uploads[2]["5.bias"] - round.global_model["5.bias"]
    assert torch.allclose(found, factor * step, atol=1e-7)
    part = clipped.only([2, 3]).bounded.updates.columnwise(lambda values: values[0])
    assert torch.allclose(part["5.bias"], clipped.bounded.uploads[2]["5.bias"])
    assert clipped.bounded.bounded is clipped.bounded


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
def test_arc_in_front_of_another_rule_is_byzfls(rule, params, oracle) -> None:
    torch.manual_seed(3)
    round = round_of(
        torch.randn(10, 30, dtype=torch.float64) * torch.linspace(0.2, 3, 10, dtype=torch.float64)[:, None]
    )
    exact = torch.from_numpy(rows_of(round))
    verdict = arc(malicious=2, rule=rule, rule_params=params).judge(round)
    assert np.allclose(aggregate(round, verdict), np.asarray(oracle(byzfl.ARC(f=2)(exact.clone()))), atol=1e-6)


def test_a_rule_that_leaves_all_clients_out_leaves_the_global_model() -> None:
    round = round_of(torch.randn(5, 6))
    verdict = arc(
        malicious=1, rule="dnc", rule_params={"filter_fraction": 4.0, "repetitions": 60, "coordinates": 1}
    ).judge(round)
    assert all(verdict.excluded) == (verdict.model is None)


@pytest.mark.parametrize("clients", [8, 9])
def test_bucketing_hands_the_means_of_buckets_to_the_rule(clients) -> None:
    rows = np.random.default_rng(2).normal(size=(clients, 11))
    round = round_of(rows, samples=range(1, clients + 1), client_ids=list(range(50, 50 + clients)))
    exact, buckets = rows_of(round), draw_buckets(clients, 2, seeded_generator(5, 1))
    assert sorted(client for bucket in buckets for client in bucket) == list(range(clients))
    means = np.stack([exact[bucket].mean(axis=0) for bucket in buckets])
    made = average_buckets(round, BucketingSettings(seed=5))
    check_the_same_in_every_view(made, means)
    assert made.samples == [sum(i + 1 for i in bucket) for bucket in buckets]
    assert made.client_ids[0] == f"{50 + buckets[0][0]} + {50 + buckets[0][1]}"
    verdict = bucketing(malicious=1, seed=5, rule="median").judge(round)
    assert np.allclose(aggregate(round, verdict), np.median(means, axis=0))
    krum = bucketing(malicious=0, seed=5, rule="krum").judge(round)
    scores = Krum(Krum.Settings(malicious=0)).judge(round_of(means)).scores
    best = buckets[int(np.argmin(scores))]
    assert [client for client, weight in enumerate(krum.weights) if weight] == sorted(best)
    assert krum.excluded == [client not in best for client in range(clients)]
    for bucket, score in zip(buckets, scores, strict=True):
        assert [krum.scores[client] for client in bucket] == pytest.approx([score] * len(bucket))


def test_buckets_are_drawn_anew_each_round_and_from_the_seed_alone() -> None:
    round = round_of(torch.randn(10, 4))
    first = average_buckets(round, BucketingSettings())
    assert average_buckets(round, BucketingSettings()).client_ids == first.client_ids
    assert average_buckets(replace(round, number=2), BucketingSettings()).client_ids != first.client_ids
    assert average_buckets(round, BucketingSettings(seed=1)).client_ids != first.client_ids
    assert len(average_buckets(round, BucketingSettings(size=4)).uploads) == 3
    alone = average_buckets(round, BucketingSettings(size=1))
    assert np.allclose(sorted(updates_of(alone)[:, 0]), sorted(rows_of(round)[:, 0]))


def test_the_rule_behind_buckets_faces_all_malicious_clients() -> None:
    """2 of 20 may be in two of the 10 buckets, so Krum's f is 2 and not a tenth of 10."""
    round = round_of(torch.randn(20, 5))
    defense = bucketing(malicious=0.1, rule="multi_krum")
    assert len([weight for weight in defense.judge(round).weights if weight]) == 2 * (10 - 2)
    with pytest.raises(TooFewUploads, match="13 usable uploads are needed, found 12"):  # 7 buckets for f = 2
        bucketing(malicious=2, rule="multi_krum").judge(round_of(torch.randn(12, 5)))
    bucketing(malicious=2, rule="multi_krum").judge(round_of(torch.randn(13, 5)))
    bucketing(malicious=2, rule="multi_krum").judge(round_of(torch.randn(13, 5), rejected={77: "NaN", 78: "NaN"}))
    Bucketing.Settings(malicious=2, rule="krum").check_clients(13)
    with pytest.raises(ValueError, match=r"size: 12 clients a round make 6 buckets of 2: malicious: 2 of 6 clients"):
        Bucketing.Settings(malicious=2, rule="krum").check_clients(12)
    with pytest.raises(TooFewUploads, match="17 usable uploads are needed, found 10"):  # 9 buckets, whatever the rule
        bucketing(malicious=4, rule="median").judge(round_of(torch.randn(10, 5)))
    with pytest.raises(ValueError, match=r"10 clients a round make 5 buckets of 2: malicious: 4 of 5 clients"):
        Bucketing.Settings(malicious=4, rule="median").check_clients(10)
    own = bucketing(malicious=2, rule="multi_krum", rule_params={"malicious": 1})
    assert len([weight for weight in own.judge(round).weights if weight]) == 2 * (10 - 1)


def test_a_rule_with_a_memory_keeps_it_behind_a_step() -> None:
    rounds = [round_of(torch.randn(7, 5, dtype=torch.float64), number=number) for number in (1, 2)]
    for defense, again in ((arc(rule="centered_clipping"), arc(rule="centered_clipping")),
                           (bucketing(rule="centered_clipping"), bucketing(rule="centered_clipping"))):  # fmt: skip
        defense.judge(rounds[0])
        again.restore(defense.state())
        assert isinstance(again.rule, CenteredClipping)
        expected = defense.judge(rounds[1])
        assert np.array_equal(vector_of(again.judge(rounds[1]).model), vector_of(expected.model))


def test_wrong_parameters_of_the_rule_are_named() -> None:
    for model in (AdaptiveRobustClipping.Settings, Bucketing.Settings):
        with pytest.raises(SettingsError, match=r"Unknown key 'betta' in defense_params\.rule_params of trimmed_mean"):
            read_settings(model, {"rule": "trimmed_mean", "rule_params": {"betta": 0.1}}, "defense_params", "arc")
    round, other = round_of(torch.randn(3, 2)), round_of(torch.randn(3, 2))
    verdict = Krum(Krum.Settings(malicious=0)).judge(round)
    with pytest.raises(ValueError, match="`judged` must be made from"):
        carry_back(verdict, round, other)
