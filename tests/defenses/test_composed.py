"""`pre` and `then`: steps in front of a rule, and another rule that aggregates what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedml_gradcam_ae import Verdict
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import Defense, overrides
from fedml_gradcam_ae.contract.round import TooFewUploads
from fedml_gradcam_ae.contract.settings import DefenseSettings, SettingsError
from fedml_gradcam_ae.defenses.clipped_clustering import ClippedClustering
from fedml_gradcam_ae.defenses.gradcam_ae.defense import GradCAMAE
from fedml_gradcam_ae.defenses.krum import Krum
from fedml_gradcam_ae.defenses.median import Median
from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
from fedml_gradcam_ae.defenses.nnm import NearestNeighborMixing
from fedml_gradcam_ae.defenses.shared.composed import STEPS, build, check
from fedml_gradcam_ae.defenses.shared.in_front import InFront
from fedml_gradcam_ae.defenses.trimmed_mean import TrimmedMean
from hostile.rules import SETTINGS

PACKAGE = "fedml_gradcam_ae."
OURS = {name: cls for name, cls in registry.defenses().items() if cls.__module__.startswith(PACKAGE)}


def rows(round):
    """The updates as a matrix, (clients, numbers), float64."""
    return torch.cat(list(round.updates.blocks()), dim=1).numpy()


def step_of(model, round):
    names = round.parameters
    return torch.cat([(model[name] - round.global_model[name]).double().flatten() for name in names]).numpy()


def test_clipped_in_front_of_the_median_as_numpy_computes_it(make_round) -> None:
    round = make_round(clients=7)
    verdict = build(Median, Median.Settings(pre=["norm_clipping"])).judge(replace(round, largest_step=None))
    updates = rows(round)
    lengths = np.linalg.norm(updates, axis=1)
    clipped = updates * np.minimum(1, np.median(lengths) / lengths)[:, None]
    assert np.allclose(step_of(verdict.model, round), np.median(clipped, axis=0), atol=1e-6)


def test_a_chain_is_byzfls(make_round) -> None:
    aggregators = pytest.importorskip("byzfl.aggregators")
    round = make_round(clients=9)
    settings = TrimmedMean.Settings(beta=2 / 9, pre=[{"type": "arc", "malicious": 2}, {"type": "nnm", "malicious": 2}])
    verdict = build(TrimmedMean, settings).judge(replace(round, largest_step=None))
    clipped = aggregators.preaggregators.ARC(f=2)(rows(round))
    mixed = aggregators.preaggregators.NNM(f=2)(np.asarray(clipped))
    expected = aggregators.aggregators.TrMean(f=2)(np.asarray(mixed))
    assert np.allclose(step_of(verdict.model, round), expected, atol=1e-6)


def test_nnm_in_front_is_the_rule_nnm(make_round) -> None:
    round = make_round(clients=8)
    one = build(Krum, Krum.Settings(malicious=2, pre=["nnm"])).judge(round)
    other = NearestNeighborMixing(NearestNeighborMixing.Settings(malicious=2, rule="krum")).judge(round)
    assert one.weights == pytest.approx(other.weights)
    assert (one.flagged, one.scores) == (other.flagged, other.scores)


def test_one_rule_decides_who_and_the_other_how(make_round) -> None:
    round = replace(make_round(clients=9), largest_step=None)
    verdict = build(MultiKrum, MultiKrum.Settings(malicious=2, then="median")).judge(round)
    alone = MultiKrum(MultiKrum.Settings(malicious=2)).judge(round)
    kept = [i for i, out in enumerate(alone.excluded) if not out]
    assert len(kept) == 7
    assert (verdict.excluded, verdict.flagged, verdict.scores) == (alone.excluded, alone.flagged, alone.scores)
    assert np.allclose(step_of(verdict.model, round), np.median(rows(round)[kept], axis=0), atol=1e-6)
    assert set(verdict.seconds) == {"then"}


def test_a_client_that_either_rule_leaves_out_is_left_out(make_round) -> None:
    round = make_round(clients=12)
    first = MultiKrum(MultiKrum.Settings(malicious=2)).judge(round)
    both = build(MultiKrum, MultiKrum.Settings(malicious=2, then={"type": "multi_krum", "kept": 4})).judge(round)
    assert sum(not out for out in both.excluded) == sum(weight > 0 for weight in both.weights) == 4
    assert all(out for out, before in zip(both.excluded, first.excluded, strict=True) if before)
    assert sum(both.weights) == pytest.approx(1)


def test_heat_maps_decide_and_a_geometric_median_aggregates(make_round) -> None:
    round = make_round(clients=10, number=3)
    same = round.uploads[2]
    round = replace(round, uploads=[same if i in (5, 6) else upload for i, upload in enumerate(round.uploads)])
    rule = build(GradCAMAE, GradCAMAE.Settings(epochs=5, vote_every=1, vote_threshold=1, then="geometric_median"))
    verdict = rule.judge(round)
    assert [i for i, out in enumerate(verdict.excluded) if out] == [2, 5, 6]
    assert verdict.reasons.keys() == {102, 105, 106}
    assert verdict.model is not None or sum(verdict.weights) == pytest.approx(1)


def test_a_detector_judges_what_the_steps_made(make_round) -> None:
    seen = []

    class Witness(Defense):
        def judge(self, round):
            seen.append(round)
            return Verdict(weights=[1 / len(round.uploads)] * len(round.uploads))

    round = make_round(clients=6)
    verdict = build(Witness, DefenseSettings(pre=[{"type": "bucketing", "size": 2}, "norm_clipping"])).judge(round)
    assert len(seen[0].uploads) == 3
    lengths = seen[0].updates.squared_norms.sqrt()
    assert float(lengths.max()) <= float(np.median(lengths)) * (1 + 1e-9) or len(set(lengths.tolist())) == 1
    assert verdict.model is not None


def test_behind_buckets_a_share_of_malicious_clients_is_a_number() -> None:
    check(MultiKrum, MultiKrum.Settings(malicious=0.1, pre=["bucketing"]), clients=20)  # 2 of 10 buckets
    with pytest.raises(ValueError, match="20 clients a round make 10 buckets: malicious: 4 of 10 clients"):
        check(MultiKrum, MultiKrum.Settings(malicious=0.2, pre=["bucketing"]), clients=20)
    with pytest.raises(ValueError, match="then: malicious: 3 of 10 clients a round are too many"):
        check(MultiKrum, MultiKrum.Settings(malicious=3, then="bulyan"), clients=10)


def test_buckets_of_malicious_clients_are_counted_in_the_round(make_round) -> None:
    round = make_round(clients=14)
    rule = build(MultiKrum, MultiKrum.Settings(malicious=0.15, pre=["bucketing"]))  # f = 2 of 7 buckets
    verdict = rule.judge(round)
    assert sum(verdict.excluded) == 4
    with pytest.raises(TooFewUploads):
        rule.judge(round.only(range(7)))
    assert rule.judge(round.only([0])).weights == [1.0]  # the round before has left nothing behind


def test_a_step_behind_buckets_faces_as_many_malicious_ones_as_there_are_clients(make_round, monkeypatch) -> None:
    seen = []
    mix = STEPS["nnm"]
    monkeypatch.setitem(STEPS, "nnm", (mix[0], lambda round, settings: seen.append(settings.malicious) or round))
    rule = build(Median, Median.Settings(pre=["bucketing", {"type": "nnm", "malicious": 0.1}]))
    rule.judge(make_round(clients=30))
    assert seen == [3]


def test_state_survives_and_clients_are_released(make_round) -> None:
    def made():
        return build(ClippedClustering, ClippedClustering.Settings(pre=["nnm"], then="median"))

    first, second = made(), made()
    for number in (1, 2):
        first.judge(make_round(clients=6, number=number))
    second.restore(first.state())
    round = make_round(clients=6, number=3)
    assert second.judge(round).excluded == first.judge(round).excluded
    assert str(second.state()) == str(first.state()) != str(made().state())


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (MultiKrum, {"pre": ["nmm"]}, "Unknown step 'nmm' in pre. Did you mean 'nnm'?"),
        (MultiKrum, {"pre": ["median"]}, "Unknown step 'median' in pre"),
        (MultiKrum, {"pre": [{"malicious": 2}]}, r"pre\[0\] must be a type or a mapping with a type"),
        (MultiKrum, {"pre": [{"type": "nnm", "f": 2}]}, r"Unknown key 'f' in pre\[0\] of nnm"),
        (MultiKrum, {"pre": [{"type": "nnm", "pre": ["arc"]}]}, "a step has no `pre` or `then` of its own"),
        (OURS["foolsgold"], {"pre": ["bucketing"]}, "FoolsGold remembers each client over the rounds"),
        (MultiKrum, {"pre": ["bucketing"], "then": "fldetector"}, "FLDetector remembers each client"),
        (NearestNeighborMixing, {"pre": ["bucketing"]}, "is a step in front of a rule: list both steps"),
        (MultiKrum, {"then": "medain"}, "Unknown rule 'medain' in then. Did you mean 'median'?"),
        (MultiKrum, {"then": {"type": "median", "pre": ["nnm"]}}, "median takes no `pre` or `then` here"),
        (MultiKrum, {"then": "flcert"}, "flcert has clients start from different models"),
        (OURS["flcert"], {"pre": ["nnm"]}, "FLCert has clients start from different models"),
        (Median, {"then": "krum"}, "Median goes in front of no other rule, since it leaves out no client"),
        (Krum, {"then": "median"}, "Krum goes in front of no other rule, since it keeps a single upload"),
        (NearestNeighborMixing, {"then": "median"}, "write `pre` in front of the rule that does"),
    ],
)
def test_what_cannot_be_composed_is_refused_with_the_reason(cls, params, message) -> None:
    with pytest.raises(SettingsError, match=message):
        check(cls, cls.Settings(**params), clients=20)
    with pytest.raises(SettingsError, match=message):
        build(cls, cls.Settings(**params))


def test_a_rule_alone_does_not_ignore_its_composition() -> None:
    with pytest.raises(ValueError, match="MultiKrum alone applies neither `pre` nor `then`"):
        MultiKrum(MultiKrum.Settings(pre=["nnm"]))


def test_which_rules_leave_out_no_client_is_true(make_round) -> None:
    """`not_composed` says so of each rule whose verdict excludes no client by name."""
    round = make_round(clients=12)
    for name, cls in OURS.items():
        if overrides(cls, "start_for") or (cls.not_composed is not None and "single" in cls.not_composed):
            continue
        try:
            rule = cls(cls.Settings())
        except (ValueError, TypeError):
            continue  # needs settings of the clients' training
        if name == "gradcam_ae":
            continue  # its maps need larger images; it excludes by name
        assert (rule.judge(round).excluded is None) == (cls.not_composed is not None), name


def hostile_round(make_round):
    """Sixteen clients; one uploads huge numbers, one the global model, two the same."""
    round = make_round(clients=16)
    huge = {name: t * 1e30 if t.is_floating_point() else t for name, t in round.uploads[0].items()}
    return replace(round, uploads=[huge, round.global_model, round.uploads[2], round.uploads[2], *round.uploads[4:]])


def settings_of(name, **composition):
    cls = OURS[name]
    known = {"malicious": 1} if "malicious" in cls.Settings.model_fields else {}
    return cls.Settings(**known, **SETTINGS.get(name, {}), **composition)


def assert_usable(verdict) -> None:
    if verdict.model is not None:
        assert all(bool(tensor.isfinite().all()) for tensor in verdict.model.values())
    else:
        assert sum(verdict.weights) == pytest.approx(1) or sum(verdict.weights) == 0


@pytest.mark.parametrize("rule", [name for name in OURS if not overrides(OURS[name], "start_for")])
def test_every_step_stands_in_front_of_every_rule(make_round, rule) -> None:
    round = hostile_round(make_round)
    for step in STEPS:
        if step == "bucketing" and (OURS[rule].remembers_clients or issubclass(OURS[rule], InFront)):
            continue
        verdict = build(OURS[rule], settings_of(rule, pre=[step])).judge(round)
        assert_usable(verdict)
        assert verdict.clients in (None, 16)


@pytest.mark.parametrize("rule", [name for name in OURS if not overrides(OURS[name], "start_for")])
def test_every_rule_aggregates_what_another_one_keeps(make_round, rule) -> None:
    then = {"type": rule, **SETTINGS.get(rule, {})}
    verdict = build(MultiKrum, settings_of("multi_krum", then=then)).judge(hostile_round(make_round))
    assert_usable(verdict)
    assert verdict.excluded[0]


def test_too_few_uploads_are_counted_in_clients_not_in_buckets(make_round) -> None:
    rule = build(MultiKrum, MultiKrum.Settings(malicious=2, pre=[{"type": "bucketing", "size": 3}]))
    with pytest.raises(TooFewUploads) as refused:
        rule.judge(make_round(clients=18))  # 6 buckets, and 2 f + 3 = 7 are needed
    assert (refused.value.needed, refused.value.found) == (19, 18)
    assert sum(rule.judge(make_round(clients=19)).weights) == pytest.approx(1)
    chained = build(Median, Median.Settings(pre=["bucketing", "bucketing", {"type": "nnm", "malicious": 1}]))
    with pytest.raises(TooFewUploads) as refused:
        chained.judge(make_round(clients=8))
    assert (refused.value.needed, refused.value.found) == (9, 8)
    chained.judge(make_round(clients=9))


def test_a_wrong_key_of_a_step_is_answered_with_the_keys_of_the_step() -> None:
    for settings in ({"pre": [{"type": "bucketing", "sise": 3}]}, {"then": {"type": "bucketing", "sise": 3}}):
        with pytest.raises(SettingsError) as refused:
            check(MultiKrum, MultiKrum.Settings(**settings))
        assert "Did you mean 'size'?" in str(refused.value)
        assert "pre, then" not in str(refused.value)


def test_lasa_averages_whole_numbers_of_the_mixtures_behind_a_step(make_round) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten())
    network.append(torch.nn.Linear(72, 2))
    round = make_round(clients=5, network=network, largest_step=None)
    uploads = [{**upload, "1.num_batches_tracked": torch.tensor(10)} for upload in round.uploads]
    uploads[4]["1.num_batches_tracked"] = torch.tensor(110)
    uploads[4]["3.weight"] = uploads[4]["3.weight"] + 5  # so far away that it is in no other client's mixture
    params = {"malicious": 1}
    built = build(OURS["lasa"], OURS["lasa"].Settings(pre=[{"type": "nnm", **params}]))
    model = built.judge(replace(round, uploads=uploads)).model
    assert int(model["1.num_batches_tracked"]) == 15  # four times 10, and once the mean of 110 and three times 10


def test_clients_that_the_first_rule_leaves_out_are_no_longer_among_the_f_of_the_second(make_round) -> None:
    settings = MultiKrum.Settings(malicious=3, then="krum")
    check(MultiKrum, settings, clients=10)
    verdict = build(MultiKrum, settings).judge(make_round(clients=10))  # 7 are kept, and Krum needs 9 for f = 3
    assert sum(weight > 0 for weight in verdict.weights) == 1
    assert sum(verdict.flagged) == 3
