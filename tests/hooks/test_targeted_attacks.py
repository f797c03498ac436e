"""Targeted attacks in the single-process simulator: what the attackers train on, and the success rate that is told."""

import json

import pytest
import torch

from fedml_gradcam_ae import Attack, register_attack
from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.hooks.success import success_rate
from fedml_gradcam_ae.recording import recorder
from fedml_gradcam_ae.recording.events import Measured, RoundReport, Tested
from simulation import distance, simulate
from tiny import fedml_dataset, tiny_cnn

ROUNDS = 2
TARGETED = {
    "badnets": {"target": 3, "trigger_size": 2, "position": "top_left"},
    "blended": {"alpha": 0.5},
    "dba": {"attackers": 4, "scale": "auto"},
    "semantic": {"source": 3, "norm_bound": 2.0},
    "label_flip": {"source": 3, "target": 5, "neurotoxin": 0.1},
}
UNTARGETED = {
    "label_flip": {},
    "gaussian_noise": {"sigma": 0.5, "relative": True},
    "free_rider": {"delta": True},
    "replay": {"age": 1},
    "alie": {"z": "optimal", "against": "trimmed_mean"},
    "ipm": {"epsilon": "optimal", "against": "krum"},
}


def attacked(name, params, **changes):
    params = {"attackers": 2, **params}
    settings = {"comm_round": ROUNDS, "enable_attack": True, "attack_type": name, "attack_params": params}
    return simulate(**{**settings, **changes})


def rates(heard):
    return [event.values["Attack/Success"] for event in heard if "Attack/Success" in getattr(event, "values", {})]


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_changes_the_model_and_tells_its_success(plugin, heard, name) -> None:
    clean = simulate(comm_round=ROUNDS)
    del heard[:]
    assert distance(attacked(name, TARGETED[name]), clean) > 1e-3
    reports = [event for event in heard if isinstance(event, RoundReport)]
    attackers = TARGETED[name].get("attackers", 2)
    assert [sum(client.malicious for client in report.clients) for report in reports] == [attackers] * ROUNDS
    assert len(rates(heard)) == ROUNDS
    assert [event.success for event in heard if isinstance(event, Tested)] == rates(heard)
    assert all(0 <= rate <= 1 for rate in rates(heard))


@pytest.mark.parametrize("name", UNTARGETED)
def test_an_untargeted_attack_changes_the_model_and_has_no_success_rate(plugin, heard, name) -> None:
    clean = simulate(comm_round=ROUNDS)
    del heard[:]
    assert distance(attacked(name, UNTARGETED[name]), clean) > 1e-3
    assert rates(heard) == []
    assert [event.success for event in heard if isinstance(event, Tested)] == [None] * ROUNDS


def test_without_an_attack_nothing_is_told(plugin, heard) -> None:
    simulate()
    assert rates(heard) == []


def test_the_rate_is_the_share_of_the_stamped_test_images_of_other_classes_that_are_taken_for_the_target(
    plugin, heard
) -> None:
    final = attacked("badnets", {"target": 3, "trigger_size": 2, "trigger_value": 1.0, "attackers": 4}, comm_round=3)
    images, labels = (torch.cat(parts) for parts in zip(*fedml_dataset(6)[3], strict=True))
    stamped = images[labels != 3].clone()
    stamped[:, :, -2:, -2:] = 1.0
    network = tiny_cnn().eval()
    network.load_state_dict(final)
    with torch.no_grad():
        expected = float((network(stamped).argmax(dim=1) == 3).double().mean())
    assert rates(heard)[-1] == pytest.approx(expected)
    assert expected > 0


def test_testing_the_attack_does_not_change_the_run(plugin, types) -> None:
    from fedml_gradcam_ae.attacks.badnets import BadNets

    @register_attack("untested")
    class Untested(BadNets):
        def triggered(self, images, labels):
            return None

    params = {"trigger_size": 2}
    assert distance(attacked("badnets", params), attacked("untested", params)) == 0


def test_the_rate_by_hand_over_batches_of_any_kind() -> None:
    class Wants(Attack):
        """Images of class 1 are to be taken for class 0."""

        def triggered(self, images, labels):
            chosen = labels == 1
            return images[chosen], torch.zeros(int(chosen.sum()), dtype=torch.int64)

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False)).train()
    network[1].weight.data = torch.tensor([[1.0], [0.0]])  # class 0 for a pixel above 0
    pixels = torch.tensor([1.0, -1.0, 2.0, 3.0])[:, None, None, None]
    batches = [{"x": pixels[:2], "y": torch.tensor([1, 1])}, (pixels[2:], torch.eye(2)[[1, 0]])]
    assert success_rate(Wants(), network, batches) == pytest.approx(2 / 3)
    assert success_rate(Wants(), network, [(pixels, torch.zeros(4))]) is None
    assert success_rate(Attack(), network, batches) is None
    assert network.training


def test_the_rate_is_recorded_and_logged(plugin, heard, tmp_path, caplog) -> None:
    caplog.set_level("INFO", "fedml_gradcam_ae")
    attacked("badnets", {"trigger_size": 2})
    record = recorder.FolderRecorder(tmp_path)
    for event in heard:
        record(event)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["Attack/Success"] for line in lines if "Attack/Success" in line] == rates(heard)
    recorder.log_event(Measured(number=2, values={"Attack/Success": 0.25}))
    assert "round 2: attack success rate 0.2500" in caplog.text


def test_a_trigger_that_does_not_fit_stops_the_run_before_the_first_training(plugin, heard) -> None:
    with pytest.raises(SettingsError, match="does not fit on images of 8 x 8"):
        attacked("badnets", {"trigger_size": 9})
    assert heard == []


@pytest.mark.parametrize("redraw", ["never", "every_round"])
def test_the_attackers_of_a_distributed_backdoor_have_different_parts_in_every_round(
    plugin, types, monkeypatch, redraw
) -> None:
    seen = []
    cls = registry.attacks()["dba"]
    poison_data = cls.poison_data

    def recording(self, network, data, attacker=0, attackers=1):
        seen.append((attacker, attackers))
        return poison_data(self, network, data, attacker, attackers)

    monkeypatch.setattr(cls, "poison_data", recording)
    params = {"attackers": 3, "redraw": redraw, "trigger_size": 4}
    attacked("dba", params, client_num_in_total=8, client_num_per_round=4)
    assert {attackers for _, attackers in seen} == {3}
    if redraw == "every_round":
        assert [attacker for attacker, _ in seen] == [0, 1, 2] * ROUNDS
    else:  # an attacker keeps its number in rounds that others miss
        assert {attacker for attacker, _ in seen} <= {0, 1, 2}


def test_neurotoxin_changes_the_training_from_the_second_round_on(plugin) -> None:
    params = {"trigger_size": 2, "attackers": 3}
    models = {
        rounds: [
            simulate(comm_round=rounds, enable_attack=True, attack_type="badnets", attack_params={**params, **more})
            for more in ({}, {"neurotoxin": 0.5})
        ]
        for rounds in (1, 2)
    }
    assert distance(*models[1]) == 0
    assert distance(*models[2]) > 1e-4
