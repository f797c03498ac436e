"""In FedML's simulator: one client of ten adds 100 to one class's output bias in every round."""

import logging
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from every_tensor import trained
from fedml_gradcam_ae import Attack, Defense, Verdict, register_attack, register_defense
from fedml_gradcam_ae.contract.round import LARGEST_STEP
from fedml_gradcam_ae.hooks.defender import _run_stock
from fedml_gradcam_ae.hooks.surroundings import Federation
from fedml_gradcam_ae.hooks.upload_settings import UploadSettings
from fedml_gradcam_ae.recording.events import RoundReport
from simulation import simulate
from tiny import fedml_dataset

CLIENTS, ATTACKER = 10, 4


@pytest.fixture
def run(plugin, types, heard):
    @register_attack("one_bias")
    class OneBias(Attack):
        """Honest training, and one number of it moved."""

        def poison(self, round, attackers):
            name = list(round.uploads[0])[-1]
            return [{**round.uploads[i], name: round.uploads[i][name] + 100 * torch.eye(10)[7]} for i in attackers]

    @register_defense("keep_all")
    class KeepAll(Defense):
        def judge(self, round):
            clients = len(round.uploads)
            return Verdict(excluded=[False] * clients, flagged=[False] * clients, weights=[1 / clients] * clients)

    honest = trained("normalized")

    def accuracy(defense, attack):
        heard.clear()
        honest.network.load_state_dict(honest.start)
        model = simulate(
            honest.network,
            fedml_dataset(CLIENTS),
            client_num_in_total=CLIENTS,
            client_num_per_round=CLIENTS,
            comm_round=3,
            enable_attack=attack,
            attack_type="one_bias",
            attack_params={"attackers": [ATTACKER]},
            enable_defense=defense != "none",
            defense_type=defense,
        )
        with torch.no_grad():
            answers = functional_call(honest.network.eval(), model, (honest.images,)).argmax(dim=1)
        return float((answers == honest.labels).double().mean()), [e for e in heard if isinstance(e, RoundReport)]

    return accuracy


@pytest.mark.parametrize("defense", ["keep_all", "gradcam_ae"])
def test_it_costs_nothing_under_a_rule_that_keeps_it_or_leaves_it_out(run, defense) -> None:
    clean, _ = run(defense, attack=False)
    attacked, reports = run(defense, attack=True)
    assert clean > 0.8
    assert clean - attacked <= 0.02
    for report in reports:
        attacker = report.clients[ATTACKER]
        assert attacker.excluded == (defense == "gradcam_ae")
        assert (attacker.shortened > 0) == (not attacker.excluded)
        # An honest client's most unusual tensor may be a little long, too.
        assert all(client.shortened <= 1 for client in report.clients if client is not attacker)


def test_without_a_defense_nothing_is_bounded(run) -> None:
    attacked, reports = run("none", attack=True)
    assert attacked < 0.5
    assert {client.shortened for report in reports for client in report.clients} == {0}


def test_the_log_says_so_in_one_line_a_round(run, caplog) -> None:
    with caplog.at_level(logging.INFO, "fedml_gradcam_ae"):
        run("keep_all", attack=True)
    lines = [line for line in caplog.messages if "shortened steps" in line]
    assert lines[0].startswith("round 1: kept with shortened steps (number of tensors): ")
    assert f"{ATTACKER} (1)" in lines[0]
    assert len(lines) == 3


@pytest.fixture
def federation(make_round):
    round = make_round(6)
    return Federation(1, list(round.client_ids), {}, round.client_ids, round.network, [], {})


def test_uploads_that_one_of_fedmls_rules_keeps_are_averaged_bounded(make_round, federation) -> None:
    round = make_round(6)
    uploads = [dict(upload) for upload in round.uploads]
    uploads[3]["5.bias"] = uploads[3]["5.bias"] + 100
    round = replace(round, uploads=uploads)
    kept = _run_stock(lambda given: given[2:5], round, federation)
    assert [weight for weight, _ in kept] == round.samples[2:5]
    assert [upload is given for (_, upload), given in zip(kept, uploads[2:5], strict=True)] == [True, False, True]
    assert torch.equal(kept[1][1]["5.bias"], round.bounded.uploads[3]["5.bias"])
    assert federation.verdict.excluded == [True, True, False, False, False, True]


def test_models_that_one_of_fedmls_rules_makes_are_taken_as_they_are(make_round, federation) -> None:
    own = [(1.0, {name: 100 * tensor for name, tensor in make_round(6).uploads[0].items()})]
    assert _run_stock(lambda given: own, make_round(6), federation) is own
    assert federation.verdict is None


def test_every_round_of_the_hooks_has_the_default_bound(make_round, federation) -> None:
    round = make_round(6)
    pairs = list(zip(round.samples, round.uploads, strict=True))
    assert federation.round(pairs, round.global_model).largest_step == LARGEST_STEP
    federation.settings = UploadSettings(largest_step=None)
    assert federation.round(pairs, round.global_model).largest_step is None
