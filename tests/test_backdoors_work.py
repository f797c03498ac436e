"""What backdoors promise, on digits: an undefended federation obeys them, and is about as accurate as without them.

The federations are those of configs/backdoors.yaml and configs/backdoor-semantic.yaml, with the figures in
docs/attacks.md, which also says why `semantic` costs more accuracy.
"""

import json
from pathlib import Path

import pytest

from benchmark import __main__ as command

CONFIGS = Path(__file__).parents[1] / "configs"
# By configuration, the most accuracy that each backdoor costs.
COSTS = {
    "backdoors": {"badnets": 0.03, "blended": 0.03, "dba": 0.03},
    "backdoor-semantic": {"semantic": 0.07},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "backdoors" else pytest.mark.soak) for name in COSTS]
)
def test_an_undefended_federation_takes_images_with_the_trigger_for_the_target(tmp_path, name) -> None:
    assert command.main(["run", str(CONFIGS / f"{name}.yaml"), "--out", str(tmp_path)]) == 0
    last = {}
    for path in tmp_path.glob("*--none--seed0--*/tests.jsonl"):
        last[path.parent.name.split("--")[0]] = json.loads(path.read_text().splitlines()[-1])
    clean = last["none"]["accuracy"]
    assert clean > 0.9
    assert {attack: last[attack]["success"] for attack in COSTS[name] if last[attack]["success"] <= 0.8} == {}
    lost = {attack: clean - last[attack]["accuracy"] for attack in COSTS[name]}
    assert {attack: loss for attack, loss in lost.items() if loss > COSTS[name][attack]} == {}
