"""What the papers promise of their attacks, on digits: an undefended federation ends up worse than without them.

The attacks that do not achieve it here, against a plain average, are named with their figures in docs/attacks.md.
"""

import json

import pytest
import yaml

from benchmark import __main__ as command

FEDERATION = {"clients": 10, "per_round": 10, "rounds": 8, "local_epochs": 2, "optimizer": "adam"}
TRAINING = {"learning_rate": 0.003, "batch_size": 16}
HARMFUL = {
    "constrained perturbation": {"type": "constrained_perturbation", "images": 64},
    "constrained perturbation in a small ball": {"type": "constrained_perturbation", "radius": 0.3, "images": 64},
    # Against the robust profile's maps it stays harmless in this federation (docs/attacks.md).
    "adaptive": {
        "type": "adaptive_heatmap",
        "profile": "paper",
        "steps": 20,
        "images": 64,
        "probe_size": 32,
        "map_size": 32,
    },
    "noise": {"type": "uniform_noise"},
    "MPAF": {"type": "mpaf"},
    "MPAF without scaling": {"type": "mpaf", "scale": 1.0},
    "flipped labels": {"type": "label_flip"},
    "IPM": {"type": "ipm", "epsilon": 2.0},
}


def accuracies(folder):
    """The final test accuracy under each attack, by 3 of 10 clients, and without one."""
    config = {
        "name": "attacks",
        "data": {"name": "digits", "size": 16},
        "model": {"name": "small_cnn"},
        "federation": {**FEDERATION, **TRAINING},
        "attacks": [{**attack, "attackers": 3} for attack in HARMFUL.values()],
        "defenses": ["none"],
        "seeds": [0],
    }
    (folder / "attacks.yaml").write_text(yaml.safe_dump(config))
    assert command.main(["run", str(folder / "attacks.yaml"), "--out", str(folder / "out")]) == 0
    found = {}
    for run in (folder / "out").glob("*--none--*"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        attack = json.loads((run / "config.json").read_text())["attack"]
        attack.pop("attackers", None)
        found[json.dumps(attack, sort_keys=True)] = [line["Test/Acc"] for line in lines if "Test/Acc" in line][-1]
    return found


@pytest.mark.long
def test_an_undefended_federation_ends_up_worse(tmp_path) -> None:
    accuracy = accuracies(tmp_path)
    clean = accuracy[json.dumps({"type": "none"})]
    assert clean > 0.8  # there is something to lose
    ends = {name: accuracy[json.dumps(attack, sort_keys=True)] for name, attack in HARMFUL.items()}
    assert {name: end for name, end in ends.items() if end >= clean - 0.05} == {}
