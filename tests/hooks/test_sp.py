"""`backend: sp`: attackers and defenders act, on the right clients, and nothing else changes."""

import copy
import math
from collections import OrderedDict
from typing import Any

import fedml
import numpy as np
import pytest
import torch
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.simulation.sp.fedavg import fedavg_api

import fedml_gradcam_ae
from fedml_gradcam_ae import Attack, Defense, Verdict, register_defense
from fedml_gradcam_ae.contract.settings import AttackSettings
from fedml_gradcam_ae.recording.events import Measured, RoundReport
from simulation import distance, same, simulate
from tiny import fedml_args, fedml_dataset, state_of, tiny_cnn

GRADCAM = {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 5}


class MendedFedAvgAPI(fedavg_api.FedAvgAPI):
    """FedML's own loop with a copied start: the reference that the plug-in must equal."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        live = self.model_trainer.get_model_params
        self.model_trainer.get_model_params = lambda: copy.deepcopy(live())


def stock(monkeypatch, api=None, **changes):
    with monkeypatch.context() as patch:
        patch.setattr(fedml.core.mlops, "fetch_config", lambda *a, **k: False)
        patch.setattr(fedml, "get_env_version", lambda: "release")
        init = fedml.init
        patch.setattr(fedml, "init", lambda args: init(args, check_env=False, should_init_logs=False))
        if api is not None:
            patch.setattr(fedml.simulation.sp.fedavg, "FedAvgAPI", api)
        return simulate(**changes)


@pytest.mark.parametrize("sampled", [6, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_with_neither_attack_nor_defense_a_run_is_fedmls_own_bit_for_bit(monkeypatch, sampled, optimizer) -> None:
    options = {"client_num_per_round": sampled, "client_optimizer": optimizer, "comm_round": 3}
    mended = stock(monkeypatch, MendedFedAvgAPI, **options)
    as_shipped = stock(monkeypatch, **options)
    fedml_gradcam_ae.register()
    ours = simulate(**options)
    fedml_gradcam_ae.unregister()
    count = "1.num_batches_tracked"
    assert int(ours.pop(count)) == 6  # two batches a round
    assert 5 <= int(mended.pop(count)) <= 6  # FedML cuts off the decimals of its mean, which rounding makes 5.9999
    assert same(ours, mended)
    as_shipped.pop(count)
    assert not same(as_shipped, mended)  # the mistake is there, so equality says something


def test_a_defense_that_keeps_everybody_gives_the_plain_average(plugin, types) -> None:
    @register_defense("keep_all")
    class KeepAll(Defense):
        def judge(self, round):
            total = sum(round.samples)
            nobody = [False] * len(round.uploads)
            return Verdict(flagged=nobody, excluded=nobody, weights=[n / total for n in round.samples])

    assert distance(simulate(), simulate(enable_defense=True, defense_type="keep_all")) < 1e-6


@pytest.fixture
def starts(monkeypatch):
    """The weights that each client starts its training from."""
    seen: list[dict[str, torch.Tensor]] = []
    train = fedavg_api.Client.train

    def recording(client, w_global):
        seen.append({name: tensor.clone() for name, tensor in w_global.items()})
        return train(client, w_global)

    monkeypatch.setattr(fedavg_api.Client, "train", recording)
    return seen


def test_in_round_0_every_client_starts_from_the_same_weights(plugin, starts) -> None:
    simulate(comm_round=1)
    assert all(same(start, starts[0]) for start in starts)
    assert same(starts[0], state_of(tiny_cnn()))


def test_fedml_itself_has_the_mistake_that_this_mends(monkeypatch, starts) -> None:
    stock(monkeypatch, comm_round=1)
    assert not same(starts[1], starts[0])


@pytest.fixture
def rounds(types):
    """A defense that remembers what it was given and keeps everybody."""
    seen = []

    @register_defense("witness")
    class Witness(Defense):
        def judge(self, round):
            seen.append(round)
            nobody = [False] * len(round.uploads)
            return Verdict(flagged=nobody, excluded=nobody, weights=[1 / len(nobody)] * len(nobody))

    return seen


WITNESS = {"enable_defense": True, "defense_type": "witness"}


def test_clients_are_named_by_their_real_ids_also_when_few_take_part(plugin, rounds) -> None:
    simulate(client_num_in_total=9, client_num_per_round=4, comm_round=3, **WITNESS)
    for index, round in enumerate(rounds):
        np.random.seed(index)  # as FedML samples
        expected = np.random.choice(range(9), 4, replace=False).tolist()
        assert round.client_ids == expected
        assert all(type(client) is int for client in round.client_ids)
        assert round.samples == [20 + client for client in expected]  # client i holds 20 + i images
        assert round.number == index + 1


def test_a_defense_is_given_the_model_that_the_clients_started_from(plugin, rounds, starts) -> None:
    simulate(**WITNESS)
    assert same(rounds[0].global_model, starts[0])
    assert distance(rounds[1].global_model, starts[6]) < 1e-6
    assert not same(rounds[1].global_model, rounds[0].global_model)


def test_a_defense_never_sees_the_clients_data_or_who_attacks(plugin, rounds) -> None:
    simulate(**WITNESS, enable_attack=True, attack_type="uniform_noise", attack_params={"attackers": [2]})
    assert all(round.local_data == {} for round in rounds)
    computed = {"parameters", "updates", "steps", "shortened", "bounded"}  # of the others, when asked for
    assert {field for round in rounds for field in vars(round)} - computed == {
        *("number", "client_ids", "uploads", "samples", "global_model", "network", "test_data", "local_data"),
        *("rejected", "largest_step", "replaced", "part_of"),
    }


def test_the_network_is_a_private_copy_in_eval_mode(plugin, rounds) -> None:
    model = tiny_cnn()
    simulate(model=model, **WITNESS)
    assert all(round.network is not model and not round.network.training for round in rounds)


def test_gradcam_ae_and_its_attacker_work_together(plugin, heard) -> None:
    simulate(
        comm_round=3,
        enable_defense=True,
        defense_type="gradcam_ae",
        defense_params=GRADCAM,
        enable_attack=True,
        attack_type="constrained_perturbation",
        attack_params={"attackers": 2, "steps": 3},
    )
    reports = [event for event in heard if isinstance(event, RoundReport)]
    assert [report.number for report in reports] == [1, 2, 3]
    attackers = [{c.client for c in report.clients if c.malicious} for report in reports]
    assert attackers[0] == attackers[1] == attackers[2]
    assert len(attackers[0]) == 2
    for report in reports:
        assert all(client.flagged == (client.score > report.threshold) for client in report.clients)
        assert sum(client.weight for client in report.clients) == pytest.approx(1)
    assert [event.number for event in heard if isinstance(event, Measured) and "Test/Acc" in event.values] == [1, 2, 3]


def test_the_attack_takes_effect_and_claims_its_samples(plugin, heard) -> None:
    clean = simulate()
    options = {"enable_attack": True, "attack_type": "uniform_noise"}
    noisy = simulate(**options, attack_params={"attackers": [2]})
    louder = simulate(**options, attack_params={"attackers": [2], "claimed_samples": 1000})
    assert 0.1 < distance(noisy, clean) < distance(louder, clean)
    last = [event for event in heard if isinstance(event, RoundReport)][-1]
    assert [client.samples for client in last.clients] == [20, 21, 1000, 23, 24, 25]


def test_left_out_uploads_have_no_influence(plugin, types) -> None:
    """Noise of 1e6 from client 3 is gone when client 3 is left out."""

    @register_defense("without_3")
    class Without3(Defense):
        def judge(self, round):
            out = [client == 3 for client in round.client_ids]
            return Verdict(flagged=out, excluded=out, weights=[0 if o else 0.2 for o in out])

    options = {"enable_defense": True, "defense_type": "without_3"}
    attack = {"enable_attack": True, "attack_type": "uniform_noise", "attack_params": {"attackers": [3], "high": 1e6}}
    assert same(simulate(**options), simulate(**options, **attack))


def test_a_defense_may_answer_with_a_model(plugin, types) -> None:
    @register_defense("second")
    class Second(Defense):
        def judge(self, round):
            self.__class__.answer = round.uploads[1]
            nobody = [False] * len(round.uploads)
            return Verdict(flagged=nobody, excluded=nobody, model=round.uploads[1])

    final = simulate(enable_defense=True, defense_type="second")
    assert distance(final, Second.answer) == 0


class Broken(Attack):
    """An attacker that uploads what no server should choke on."""

    class Settings(AttackSettings):
        kind: str

    def __init__(self, settings):
        self.kind = settings.kind

    def poison(self, round, attackers):
        from test_round import broken

        return [broken(round.uploads[i], self.kind) for i in attackers]


@pytest.fixture(autouse=True)
def own_attacks(types):
    """For this file's tests only: others go through all that is registered."""
    types["attacks"]["broken_for_tests"] = Broken


@pytest.mark.parametrize("defense", ["gradcam_ae", "fedml:krum", "fedml:foolsgold"])
@pytest.mark.parametrize(
    "kind", ["NaN", "infinity", "missing key", "extra key", "another shape", "another dtype", "empty"]
)
def test_a_broken_upload_does_not_stop_the_server(plugin, heard, defense, kind) -> None:
    own = {"defense_params": GRADCAM} if defense == "gradcam_ae" else {"byzantine_client_num": 1}
    final = simulate(
        enable_defense=True,
        defense_type=defense,
        **own,
        enable_attack=True,
        attack_type="broken_for_tests",
        attack_params={"attackers": [2], "kind": kind},
    )
    assert all(torch.isfinite(tensor).all() for tensor in final.values())
    for report in (event for event in heard if isinstance(event, RoundReport)):
        bad = report.clients[2]
        assert (bad.flagged, bad.excluded, bad.weight, bad.malicious) == (True, True, 0, True)
        assert bad.score in (None, math.inf)
        assert bad.reason
        assert all(client.reason is None for client in report.clients if client.client != 2)


def test_when_nobody_is_left_the_global_model_stays(plugin, heard) -> None:
    for defense, own in (
        ("gradcam_ae", {"defense_params": GRADCAM}),
        ("cclip", {"bucket_size": 1}),
        ("fedml:krum", {"byzantine_client_num": 1}),
    ):
        heard.clear()
        final = simulate(
            enable_defense=True,
            defense_type=defense,
            **own,
            enable_attack=True,
            attack_type="broken_for_tests",
            attack_params={"attackers": 6, "kind": "NaN"},
        )
        assert same(final, state_of(tiny_cnn()))
        assert [event.global_model_stays for event in heard if isinstance(event, RoundReport)] == [True, True]


def test_a_defense_that_leaves_out_everybody_leaves_the_global_model(plugin, heard, types) -> None:
    @register_defense("trust_nobody")
    class TrustNobody(Defense):
        def judge(self, round):
            everybody = [True] * len(round.uploads)
            return Verdict(flagged=everybody, excluded=everybody, weights=[0.0] * len(everybody))

    assert same(simulate(enable_defense=True, defense_type="trust_nobody"), state_of(tiny_cnn()))
    assert [event.global_model_stays for event in heard if isinstance(event, RoundReport)] == [True, True]


def test_krum_that_is_left_with_too_few_does_not_stop_the_server(plugin, heard) -> None:
    """Four broken of six: 2 f + 2 <= n - m fails for what remains, and FedML's Krum raises."""
    simulate(
        enable_defense=True,
        defense_type="fedml:krum",
        byzantine_client_num=1,
        enable_attack=True,
        attack_type="broken_for_tests",
        attack_params={"attackers": 4, "kind": "NaN"},
    )
    assert all(event.global_model_stays for event in heard if isinstance(event, RoundReport))


# FedML's own types, as shipped

FEDML_DEFENSES = {
    "fedml:krum": {"byzantine_client_num": 1},
    "multikrum": {"byzantine_client_num": 1, "krum_param_m": 2},
    "fedml:foolsgold": {},
    "norm_diff_clipping": {"norm_bound": 0.1},
    "cclip": {"bucket_size": 1, "tau": 0.1},
    "3sigma": {},
    "3sigma_foolsgold": {"pretraining_round_num": 0},  # so that it may leave somebody out in a short run
    "anomaly_detection": {"cosine_similarity_bound": 0.99},
    "fedml:crfl": {"clip_threshold": 1.0},
    "slsgd": {"trim_param_b": 1, "alpha": 0.5, "option_type": 2},
    "fedml:trimmed_mean": {"beta": 0.2},
    "rfa": {},
    "geo_median": {"byzantine_client_num": 1, "batch_num": 6},
}


@pytest.mark.parametrize("defense", FEDML_DEFENSES)
@pytest.mark.filterwarnings("ignore:FedML's")
def test_fedmls_own_defenses_act(plugin, defense) -> None:
    defended = simulate(enable_defense=True, defense_type=defense, **FEDML_DEFENSES[defense])
    assert distance(defended, simulate()) > 1e-4


def test_krum_answers_with_one_of_the_uploads_and_is_reported_so(plugin, heard, monkeypatch) -> None:
    uploads = []
    hooked = fedml.simulation.sp.fedavg.FedAvgAPI
    inner = hooked._aggregate

    def recording(self, w_locals):
        uploads.append([(n, OrderedDict(upload)) for n, upload in w_locals])
        return inner(self, w_locals)

    monkeypatch.setattr(hooked, "_aggregate", recording)
    final = simulate(enable_defense=True, defense_type="fedml:krum", byzantine_client_num=1)
    report = [event for event in heard if isinstance(event, RoundReport)][-1]
    (kept,) = [i for i, client in enumerate(report.clients) if not client.excluded]
    assert distance(final, uploads[-1][kept][1]) < 1e-6
    assert report.clients[kept].weight == 1


def test_the_fedml_prefix_means_fedmls_own_type(plugin) -> None:
    options = {"enable_defense": True, "byzantine_client_num": 1, "krum_param_m": 2}
    assert same(simulate(**options, defense_type="multikrum"), simulate(**options, defense_type="fedml:multikrum"))
    defenders = []
    for name in ("fedml:trimmed_mean", "trimmed_mean"):
        own = {"beta": 0.2} if name.startswith("fedml:") else {"defense_params": {"beta": 0.2}}
        FedMLDefender.get_instance().init(fedml_args(enable_defense=True, defense_type=name, **own))
        defenders.append(type(FedMLDefender.get_instance().defender).__name__)
    assert defenders == ["CoordinateWiseTrimmedMeanDefense", "PluginDefense"]


@pytest.mark.parametrize("defense", ["fedml:weak_dp", "robust_learning_rate"])
def test_a_fedml_defense_that_is_never_called_is_named_as_such(plugin, defense) -> None:
    with pytest.warns(
        UserWarning,
        match=f"{defense.removeprefix('fedml:')}: FedML accepts it and never calls it: the run is undefended",
    ):
        defended = simulate(enable_defense=True, defense_type=defense, stddev=0.1, robust_threshold=4)
    assert distance(defended, simulate()) < 1e-6


def test_fedmls_own_attacks_act(plugin, heard) -> None:
    clean = simulate()
    zeroed = simulate(enable_attack=True, attack_type="byzantine", byzantine_client_num=6, attack_mode="zero")
    assert all(float(zeroed[name].abs().max()) == 0 for name in ("0.weight", "5.weight"))
    replaced = simulate(enable_attack=True, attack_type="model_replacement", malicious_client_id=1)
    assert distance(replaced, clean) > 1e-3
    # FedML only prints who its attackers are: the truth is not known.
    assert {client.malicious for client in [e for e in heard if isinstance(e, RoundReport)][-1].clients} == {None}


def test_fedmls_label_flipping_reaches_the_training(plugin) -> None:
    flip = {"original_class_list": list(range(10)), "target_class_list": list(range(9, -1, -1)), "comm_round": 1}
    flip |= {"enable_attack": True, "attack_type": "label_flipping"}
    never = simulate(ratio_of_poisoned_client=0.0, **flip)
    always = simulate(ratio_of_poisoned_client=1.0, **flip)
    assert distance(never, always) > 1e-3


def test_attack_prob_is_honored(plugin, heard) -> None:
    options = {"enable_attack": True, "attack_type": "uniform_noise", "comm_round": 3}
    assert distance(simulate(**options, attack_prob=0.0), simulate(comm_round=3)) < 1e-6
    reports = [event for event in heard if isinstance(event, RoundReport)]
    assert not any(client.malicious for report in reports for client in report.clients)


# What docs/settings.md says of FedML's own types


def equal_counts(dataset):
    """Every client claims the same number of samples."""
    return [*dataset[:4], dict.fromkeys(dataset[4], 20), *dataset[5:]]


@pytest.fixture
def last_uploads(monkeypatch):
    seen = {}
    hooked = fedml.simulation.sp.fedavg.FedAvgAPI
    inner = hooked._aggregate

    def recording(self, w_locals):
        seen["uploads"] = [OrderedDict(upload) for _, upload in w_locals]
        return inner(self, w_locals)

    monkeypatch.setattr(hooked, "_aggregate", recording)
    return seen


@pytest.mark.parametrize("defense", ["rfa", "geo_median"])
@pytest.mark.filterwarnings("ignore:FedML's")
def test_with_equal_counts_fedmls_geometric_medians_answer_with_the_first_model(plugin, last_uploads, defense) -> None:
    own = {"byzantine_client_num": 1, "batch_num": 6} if defense == "geo_median" else {}
    final = simulate(dataset=equal_counts(fedml_dataset(6)), enable_defense=True, defense_type=defense, **own)
    assert distance(final, last_uploads["uploads"][0]) < 1e-5
    assert distance(final, last_uploads["uploads"][1]) > 1e-3


@pytest.mark.parametrize(
    ("defense", "own"),
    [("fedml:trimmed_mean", {"beta": 0.2}), ("slsgd", {"trim_param_b": 1, "alpha": 1.0, "option_type": 2})],
)
@pytest.mark.filterwarnings("ignore:FedML's")
def test_fedmls_trimming_drops_clients_by_their_sample_count(plugin, heard, defense, own) -> None:
    simulate(enable_defense=True, defense_type=defense, **own)
    report = next(event for event in heard if isinstance(event, RoundReport))
    assert [client.client for client in report.clients if client.excluded] == [0, 5]  # 20 and 25 samples


@pytest.mark.parametrize(("defense", "error"), [("wise_median", RuntimeError), ("3sigma_geo", AttributeError)])
@pytest.mark.filterwarnings("ignore:FedML's")
def test_fedml_defenses_that_stop_with_an_error(plugin, defense, error) -> None:
    with pytest.raises(error):
        simulate(enable_defense=True, defense_type=defense, comm_round=4)


def test_fedmls_model_replacement_fails_on_one_of_its_keys(plugin) -> None:
    with pytest.raises(AttributeError, match="poisoned_training_round"):
        simulate(enable_attack=True, attack_type="model_replacement", attack_training_rounds=[1])
