"""Every attack against every defense, in FedML's simulator on digits, from a YAML file alone.

A rotation of the pairs runs in `make test`, another one in `make test-long`, the others by hand (`pytest -m soak`).
"""

import fedml
import pytest
import torch
import yaml

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.hooks import builtin
from fedml_gradcam_ae.recording.events import RoundReport
from tiny import fedml_args, fedml_dataset, tiny_cnn

CLIENTS, ATTACKERS, ROUNDS = 8, [2, 5], 2
MAPS = {"probe_size": "native", "map_size": "native"}
DEFENSES = {
    "none": {},
    **{name: {} for name in registry.defenses()},
    "gradcam_ae": {"profile": "paper", **MAPS, "epochs": 5},
    "gradcam_krum": MAPS,
    "deepsight": {"noise_inputs": 20},
    "fldetector": {"window": 1},
    "auror": {"observe_rounds": 1},
}
ATTACKS = {
    "none": {},
    **{name: {} for name in registry.attacks()},
    "constrained_perturbation": {"steps": 2, "images": 16},
    "adaptive_heatmap": {"steps": 2, "images": 16},
    "vgae_mp": {"epochs": 3},
}
BY_DIAGONAL = {
    (attack, defense): (row + column) % 5
    for row, attack in enumerate(ATTACKS)
    for column, defense in enumerate(DEFENSES)
}
ROTATION = [pair for pair, diagonal in BY_DIAGONAL.items() if diagonal == 0]
OTHERS = [
    pytest.param(*pair, marks=pytest.mark.long if diagonal < 3 else pytest.mark.soak)
    for pair, diagonal in BY_DIAGONAL.items()
    if diagonal
]


def section(word, name, params):
    if name == "none":
        return {f"enable_{word}": False}
    return {f"enable_{word}": True, f"{word}_type": name, f"{word}_params": params}


@pytest.fixture
def run(plugin, heard, tmp_path, monkeypatch):
    def run(attack, defense):
        common = {**vars(fedml_args(comm_round=ROUNDS, client_num_in_total=CLIENTS, client_num_per_round=CLIENTS))}
        sections = {
            "common_args": common,
            "defense_args": section("defense", defense, DEFENSES[defense]),
            "attack_args": section("attack", attack, {**ATTACKS[attack], "attackers": ATTACKERS}),
        }
        path = tmp_path / "fedml_config.yaml"
        path.write_text(yaml.safe_dump(sections))
        monkeypatch.setattr("sys.argv", ["main.py", "--cf", str(path)])
        args = fedml.init()
        torch.manual_seed(0)
        runner = fedml.FedMLRunner(args, fedml.device.get_device(args), fedml_dataset(CLIENTS), tiny_cnn())
        runner.run()
        return runner.runner.fl_trainer.model_trainer.get_model_params(), [
            e for e in heard if isinstance(e, RoundReport)
        ]

    return run


def check(run, attack, defense):
    model, reports = run(attack, defense)
    assert all(torch.isfinite(tensor).all() for tensor in model.values())
    assert len(reports) == (0 if attack == defense == "none" else ROUNDS)
    for report in reports:
        assert [c.client for c in report.clients if c.malicious] == ([] if attack == "none" else ATTACKERS)
        weights = [client.weight for client in report.clients]
        assert None in weights or sum(weights) == pytest.approx(1) or report.global_model_stays


@pytest.mark.parametrize(("attack", "defense"), ROTATION)
def test_a_pair_of_the_rotation_completes(run, attack, defense) -> None:
    check(run, attack, defense)


@pytest.mark.parametrize(("attack", "defense"), OTHERS)
def test_every_other_pair_completes(run, attack, defense) -> None:
    check(run, attack, defense)


def test_the_rotation_has_every_attack_and_every_defense() -> None:
    assert {attack for attack, _ in ROTATION} == set(ATTACKS)
    assert {defense for _, defense in ROTATION} == set(DEFENSES)


def test_shared_names_are_ours_and_fedmls_stay_reachable() -> None:
    shared = registry.defenses().keys() & builtin.DEFENSES.keys()
    assert shared == {"krum", "trimmed_mean", "foolsgold", "crfl", "weak_dp"}
