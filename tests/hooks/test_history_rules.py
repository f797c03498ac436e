"""FLTrust, FLDetector, AUROR, FAA-DL, FoolsGold, SignGuard and FLAME in FedML's simulator."""

from typing import Any

import pytest
import torch

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.defenses import fltrust
from fedml_gradcam_ae.hooks import configuration
from fedml_gradcam_ae.recording.events import RoundReport
from simulation import distance, simulate
from tiny import fedml_args, tiny_cnn

RULES: dict[str, tuple[list[int], dict[str, Any]]] = {
    "fldetector": ([1], {"window": 2}),
    "auror": ([1], {"observe_rounds": 2}),
    "faa_dl": ([1], {}),
    "foolsgold": ([1, 4], {}),
    "signguard": ([1], {"coordinates": 1.0}),
    "flame": ([1, 4], {}),
}


def reports(heard) -> list[RoundReport]:
    return [event for event in heard if isinstance(event, RoundReport)]


@pytest.mark.parametrize("defense", RULES)
def test_attackers_that_add_noise_are_left_out_of_a_federation(plugin, heard, defense) -> None:
    attackers, params = RULES[defense]
    model = simulate(
        comm_round=5,
        enable_defense=True,
        defense_type=defense,
        defense_params=params,
        enable_attack=True,
        attack_type="uniform_noise",
        attack_params={"attackers": attackers},
    )
    last = reports(heard)[-1]
    assert [client.malicious for client in last.clients] == [i in attackers for i in range(6)]
    assert all(client.excluded for client in last.clients if client.malicious)
    assert not all(client.excluded for client in last.clients if not client.malicious)
    assert min(c.score for c in last.clients if c.malicious) > max(c.score for c in last.clients if not c.malicious)
    assert last.seconds["total"] > 0
    assert all(torch.isfinite(tensor).all() for tensor in model.values())


@pytest.mark.parametrize("defense", ["fltrust", *RULES])
def test_where_each_round_has_other_clients(plugin, heard, defense) -> None:
    simulate(
        client_num_per_round=3,
        comm_round=5,
        enable_defense=True,
        defense_type=defense,
        defense_params=RULES.get(defense, ([], {}))[1],
    )
    assert [report.number for report in reports(heard)] == [1, 2, 3, 4, 5]
    assert len({tuple(client.client for client in report.clients) for report in reports(heard)}) > 1
    assert sum(report.global_model_stays for report in reports(heard)) <= 1


def test_fltrust_trains_as_the_clients_do_unless_it_is_told_otherwise(plugin, heard, monkeypatch) -> None:
    asked = []
    train = fltrust.train_locally

    def recording(*args, **options):
        asked.append({key: value for key, value in options.items() if key != "generator"} | {"images": len(args[2])})
        return train(*args, **options)

    monkeypatch.setattr(fltrust, "train_locally", recording)
    start = {name: tensor.clone() for name, tensor in tiny_cnn().state_dict().items()}
    options = {"client_optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.001, "epochs": 2, "comm_round": 1}
    model = simulate(
        **options, enable_defense=True, defense_type="fltrust", defense_params={"local_epochs": 3, "root_images": 50}
    )
    assert asked == [
        {
            "epochs": 3,
            "learning_rate": 0.01,
            "optimizer": "adam",
            "weight_decay": 0.001,
            "batch_size": 32,
            "images": 50,
        }
    ]
    assert 0 < distance(start, model) < 25
    assert any(not client.excluded for client in reports(heard)[0].clients)


def test_fltrust_says_at_the_start_what_it_cannot_find() -> None:
    args = fedml_args(enable_defense=True, defense_type="fltrust", defense_params={"local_learning_rate": 0.1})
    del args.batch_size, args.learning_rate
    requested = configuration.requested(configuration.DEFENSE, args)
    with pytest.raises(SettingsError, match=r"needs local_batch_size: .*, or batch_size in train_args"):
        requested.build()


def test_fltrust_gives_an_attacker_little_weight(plugin, heard) -> None:
    options = {
        "comm_round": 4,
        "enable_attack": True,
        "attack_type": "uniform_noise",
        "attack_params": {"attackers": [1]},
    }
    undefended = simulate(**options)
    defended = simulate(**options, enable_defense=True, defense_type="fltrust")
    benign = simulate(comm_round=4)
    assert distance(defended, benign) < 0.3 * distance(undefended, benign)
