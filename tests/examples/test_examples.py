"""FedML's own example configurations against the checks of the start; tests/test_documentation.py has the counts."""

import csv
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_example_is_accepted_as_it_is_or_would_run_undefended() -> None:
    counted = program("tools/docs/make_examples.py").counts()
    assert counted.total() == 305
    reasons = (
        r"refused: federated_optimizer: \w+ would ignore enable_defense",
        r"refused: attack_args\.attack_round_num is missing: dlg needs it",  # FedML stops with an AttributeError
        r"refused: Unknown defense_type 'diff_clipping'",  # FedML stops with an error of its own
        r"refused: Unknown federated_optimizer '(FedSGD|FedProx)'",  # FedML stops with Exception("Exception")
        r"refused: scenario: hierarchical",  # FedML ends
        r"refused: backend: MQTT_(WEB3|THETASTORE)",  # FedML needs a package that it does not bring
    )
    for what, number in counted.items():
        if not what.startswith("accepted"):
            assert any(re.match(reason, what) for reason in reasons), what
            assert number <= 3


def test_the_table_holds_facts_of_every_configuration(tmp_path, monkeypatch, capsys) -> None:
    collect = program("tools/collect_examples.py")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.yaml").write_text(
        "common_args: {training_type: simulation, backend: sp}\n"
        "train_args: {federated_optimizer: FedAvg, client_num_per_round: 4}\n"
        "defense_args: {enable_defense: true, defense_type: krum, krum_param_m: 5}\n"
    )
    (tmp_path / "two.yaml").write_text("train_args: {epochs: 1}\n")
    (tmp_path / "mapping.yaml").write_text("mapping_default: {host: [1]}\n")
    (tmp_path / "broken.yaml").write_text("train_args: [\n")
    monkeypatch.setattr(collect, "TABLE", tmp_path / "fedml.csv")
    collect.main(str(tmp_path))
    found = list(csv.DictReader((tmp_path / "fedml.csv").open()))
    assert [row["path"] for row in found] == ["a/one.yaml", "two.yaml"]
    assert (found[0]["backend"], found[0]["client_num_per_round"]) == ("sp", "4")
    assert found[0]["defense_args"] == '{"enable_defense": true, "defense_type": "krum", "krum_param_m": 5}'
    assert set(found[1].values()) == {"two.yaml", ""}
    assert capsys.readouterr().err == "not YAML: broken.yaml\n"
