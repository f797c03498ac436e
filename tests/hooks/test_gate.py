"""The gate on FedML's paths: with and without attack and defense, claims, too few uploads, rounded counts."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from types import SimpleNamespace

import fedml
import pytest
import torch
from fedml.core.security.fedml_attacker import FedMLAttacker
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.ml.aggregator.agg_operator import FedMLAggOperator
from fedml.ml.aggregator.aggregator_creator import create_server_aggregator
from fedml.simulation.sp.fedavg import fedavg_api

from fedml_gradcam_ae import Attack, Defense, Verdict, register_defense
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.defenses.multi_krum import MultiKrum
from fedml_gradcam_ae.hooks.configuration import check
from fedml_gradcam_ae.recording.events import RoundReport
from fedml_gradcam_ae.recording.recorder import as_json
from fedml_gradcam_ae.recording.watching import watching
from simulation import same, simulate
from tiny import fedml_args, fedml_dataset, state_of, tiny_cnn

NAN = {"enable_attack": True, "attack_type": "nan_for_tests", "attack_params": {"attackers": [2]}}
KRUM = {"enable_defense": True, "defense_type": "multi_krum"}


def with_nan(model):
    return {name: tensor * math.nan if tensor.is_floating_point() else tensor for name, tensor in model.items()}


class UploadsNaN(Attack):
    def poison(self, round, attackers):
        return [with_nan(round.uploads[i]) for i in attackers]


def reports(heard):
    return [event for event in heard if isinstance(event, RoundReport)]


def finite(model):
    return all(torch.isfinite(tensor).all() for tensor in model.values())


@pytest.fixture
def broken_training(monkeypatch):
    """Client 2's training diverges."""
    train = fedavg_api.Client.train

    def diverging(client, w_global):
        model = train(client, w_global)
        return with_nan(model) if client.client_idx == 2 else model

    monkeypatch.setattr(fedavg_api.Client, "train", diverging)


def test_where_nothing_acts_an_unusable_upload_is_left_out_and_reported(plugin, heard, broken_training) -> None:
    assert finite(simulate())
    for report in reports(heard):
        assert [client.client for client in report.clients if client.excluded] == [2]
        assert report.clients[2].reason == "'0.weight' holds NaN or infinity"
        assert sum(client.weight for client in report.clients) == pytest.approx(1)
        assert report.clients[0].weight == pytest.approx(20 / (20 + 21 + 23 + 24 + 25))
    assert len(reports(heard)) == 2


def test_where_nothing_acts_and_all_is_well_nothing_is_said(plugin, heard) -> None:
    simulate()
    assert reports(heard) == []


@pytest.mark.parametrize("options", [NAN, {**NAN, **KRUM}], ids=["attack", "attack and defense"])
def test_what_an_attack_makes_passes_the_gate_too(plugin, heard, options) -> None:
    assert finite(simulate(**options))
    assert [report.clients[2].reason for report in reports(heard)] == ["'0.weight' holds NaN or infinity"] * 2
    assert all(report.clients[2].weight == 0 for report in reports(heard))


def test_without_a_usable_upload_the_global_model_stays(plugin, heard) -> None:
    attack = {**NAN, "attack_params": {"attackers": 6}}
    assert same(simulate(**attack), state_of(tiny_cnn()))
    assert all(report.global_model_stays for report in reports(heard))


@pytest.fixture
def judged(types):
    """The rounds that a defense was given, which answers with the claims as weights."""
    seen = []

    @register_defense("by_samples")
    class BySamples(Defense):
        def judge(self, round):
            seen.append(round)
            out = [False] * len(round.uploads)
            return Verdict(flagged=out, excluded=out, weights=[n / sum(round.samples) for n in round.samples])

    return seen


CLAIM = {"enable_attack": True, "attack_type": "uniform_noise"}


@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize(
    ("largest", "counts"), [({}, 110.0), ({"largest_weight": 2}, 44.0), ({"largest_weight": None}, 1e6)]
)
def test_a_claim_counts_for_at_most_so_many_medians(plugin, heard, judged, defended, largest, counts) -> None:
    acts = {"enable_defense": True, "defense_type": "by_samples"} if defended else {}
    simulate(**CLAIM, attack_params={"attackers": [4], "claimed_samples": 1e6}, comm_round=1, **acts, **largest)
    (report,) = reports(heard)
    if defended:
        assert judged[0].samples == [20, 21, 22, 23, counts, 25]
    assert report.clients[4].samples == 1e6
    assert report.clients[4].weight == pytest.approx(counts / (counts + 111))
    assert report.clients[4].counted == (None if counts == 1e6 else counts)
    assert all(client.counted is None for client in report.clients if client.client != 4)
    line = json.loads(json.dumps(as_json(report), allow_nan=False))
    if counts == 110:
        assert line["notes"] == ["client 4 claims 1e+06 samples: counted as 110, 5 times the median"]
    assert len(line["notes"]) == (counts != 1e6)


FEW = {**KRUM, "defense_params": {"malicious": 2}, "client_num_in_total": 7, "client_num_per_round": 7, "comm_round": 1}


class UploadsNothing(Attack):
    def poison(self, round, attackers):
        return [[1, 2, 3] for _ in attackers]


@pytest.fixture(autouse=True)
def own_attacks(types):
    """For this file's tests only: others go through all that is registered."""
    types["attacks"].update(nan_for_tests=UploadsNaN, shape_for_tests=UploadsNothing)


@pytest.fixture
def too_few(types):
    """A rule that needs nine uploads."""
    from fedml_gradcam_ae.contract.round import TooFewUploads

    @register_defense("needs_nine")
    class NeedsNine(Defense):
        def judge(self, round):
            raise TooFewUploads(9, len(round.uploads))

    return {"enable_defense": True, "defense_type": "needs_nine", "comm_round": 1}


def test_with_too_few_uploads_the_global_model_stays_unless_told_otherwise(plugin, heard, too_few) -> None:
    assert same(simulate(**too_few), state_of(tiny_cnn()))
    (report,) = reports(heard)
    assert report.global_model_stays
    assert report.notes == (
        "needs_nine needs 9 usable uploads, found 6: the global model stays (on_too_few: keep_global)",
    )
    assert not any(client.flagged for client in report.clients)


def test_they_can_be_averaged_or_stop_the_run(plugin, heard, too_few) -> None:
    averaged = simulate(**too_few, on_too_few="average")
    (report,) = reports(heard)
    assert [client.weight for client in report.clients] == pytest.approx([(20 + i) / 135 for i in range(6)])
    assert "all of them are averaged" in report.notes[0]
    assert not same(averaged, state_of(tiny_cnn()))
    with pytest.raises(
        RuntimeError, match=r"round 1: needs_nine needs 9 usable uploads, found 6, and on_too_few: stop"
    ):
        simulate(**too_few, on_too_few="stop")


def test_a_watcher_with_too_few_uploads_would_keep_the_global_model(plugin, heard) -> None:
    with watching({"krum": MultiKrum(MultiKrum.Settings(malicious=2))}):
        simulate(comm_round=1)
    (report,) = reports(heard)
    assert report.watched["krum"].excluded == [True] * 6
    assert report.watched["krum"].flagged == [False] * 6
    assert not report.global_model_stays


def test_rejected_uploads_count_as_the_malicious_ones(plugin, heard) -> None:
    attack = {"enable_attack": True, "attack_type": "shape_for_tests", "attack_params": {"attackers": 2}}
    simulate(**FEW, **attack)
    (report,) = reports(heard)
    assert not report.notes
    assert sum(client.weight for client in report.clients) == pytest.approx(1)


def average(counts, samples):
    uploads = [
        (n, OrderedDict(w=torch.tensor([float(c)]), batches=torch.tensor(c)))
        for n, c in zip(samples, counts, strict=True)
    ]
    return FedMLAggOperator.agg(SimpleNamespace(federated_optimizer="FedAvg"), uploads)


def test_means_of_whole_numbers_are_rounded_and_others_as_before(monkeypatch) -> None:
    import fedml_gradcam_ae

    cases = [([7, 7, 7], [20, 21, 22]), ([3, 4], [1, 1.5]), ([2**40 + 1, 2**40 + 3], [1, 1])]
    stock = [average(*case) for case in cases]
    fedml_gradcam_ae.register()
    ours = [average(*case) for case in cases]
    fedml_gradcam_ae.unregister()
    assert [int(model["batches"]) for model in ours] == [7, 4, 2**40 + 2]
    assert all(model["batches"].dtype == torch.int64 for model in ours)
    assert [int(model["batches"]) for model in stock] != [7, 4, 2**40 + 2]  # the mistake is there
    assert all(torch.equal(a["w"], b["w"]) for a, b in zip(ours, stock, strict=True))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"largest_weight": 0.5}, r"upload_args\.largest_weight: expected greater than or equal to 1, found 0.5"),
        ({"largest_weight": "many"}, r"upload_args\.largest_weight: expected a valid number, found 'many' \(text\)"),
        ({"on_too_few": "krum"}, r"upload_args\.on_too_few: expected 'keep_global', 'average' or 'stop', found 'krum'"),
    ],
)
def test_mistakes_in_the_settings_are_answered_at_the_start(keys, message) -> None:
    check(fedml_args())
    with pytest.raises(SettingsError, match=message):
        check(fedml_args(**keys))


def test_an_unknown_key_of_the_section_is_answered(tmp_path) -> None:
    path = tmp_path / "fedml_config.yaml"
    path.write_text("upload_args: {largest_wieght: 3.0}\n")
    with pytest.raises(
        SettingsError, match=r"Unknown key 'largest_wieght' in upload_args\. Did you mean 'largest_weight'"
    ):
        check(fedml_args(yaml_config_file=str(path)))


@pytest.fixture
def silo(plugin):
    """A cross-silo server's aggregator, without its transport."""
    from fedml_gradcam_ae.hooks.cross_silo.aggregator import HookedAggregator

    def make(**changes):
        path = {"training_type": "cross_silo", "scenario": "horizontal", "backend": "GRPC"}
        args = fedml.init(fedml_args(**path, **changes))
        args.run_id = 0
        FedMLAttacker.get_instance().init(args)
        FedMLDefender.get_instance().init(args)
        model, data = tiny_cnn(), fedml_dataset(4)
        server = create_server_aggregator(model, args)
        return HookedAggregator(
            data[2], data[3], data[0], data[5], data[6], data[4], 4, torch.device("cpu"), args, server
        )

    return make


@pytest.mark.parametrize("defense", [{}, {"enable_defense": True, "defense_type": "median"}], ids=["none", "median"])
def test_a_cross_silo_server_takes_canonical_uploads_and_counted_claims(silo, heard, defense) -> None:
    aggregator = silo(**defense)
    model = state_of(tiny_cnn())

    def sent(move, **changes):
        return OrderedDict({**{n: t + move if "weight" in n else t.clone() for n, t in model.items()}, **changes})

    uploads = {
        1: (20, sent(1.0)),
        2: (20, sent(1.0)),
        3: (1e12, sent(1.0)),
        4: (20, sent(1.0, **{"0.weight": model["0.weight"].to_sparse()})),
        5: ([[[]]] * 3, sent(1.0)),
        6: (10**400, sent(1.0)),
        7: (20, sent(1.0, **{"0.weight": torch.nn.Parameter(model["0.weight"] + 1)})),
    }
    kept = aggregator.aggregate_uploads(1, uploads, list(uploads), {})
    (report,) = reports(heard)
    assert kept == [1, 2, 3, 7]
    assert [client.client for client in report.clients if client.excluded] == [4, 5, 6]
    assert report.notes == ("client 3 claims 1e+12 samples: counted as 100, 5 times the median",)
    assert math.isnan(report.clients[4].samples)
    json.dumps(as_json(report), allow_nan=False)
    found = aggregator.get_global_model_params()
    assert torch.allclose(found["0.weight"], model["0.weight"] + 1)
    if not defense:
        assert report.clients[2].weight == pytest.approx(100 / 160)


def test_clients_that_start_from_models_of_their_groups_pass(plugin, heard) -> None:
    """Their batches are counted from the global model's count, whatever the groups' means are."""
    data = fedml_dataset(6)
    for client in (0, 1):  # twice as many batches
        data[5][client] = list(data[5][client]) * 2
    simulate(enable_defense=True, defense_type="flcert", defense_params={"groups": 2}, comm_round=3, dataset=data)
    assert [client.reason for report in reports(heard) for client in report.clients] == [None] * 18
