"""python -m fedml_gradcam_ae SCRIPT.py, as a user types it: a plain FedML script, unchanged, with only YAML edits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "configs" / "simulation"


def run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "fedml_gradcam_ae", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def config(folder, **defense):
    sections = yaml.safe_load((PROJECT / "fedml_config.yaml").read_text())
    sections["train_args"]["comm_round"] = 3
    sections["defense_args"] = {"enable_defense": True, **defense}
    path = folder / "fedml_config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_the_script_does_not_know_the_plug_in() -> None:
    assert "fedml_gradcam_ae" not in (PROJECT / "main.py").read_text().split('"""')[2]


def test_the_example_runs_as_it_is(tmp_path) -> None:
    result = run(PROJECT / "main.py", "--cf", PROJECT / "fedml_config.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert sum(": left out " in line for line in lines) == 6
    assert sum(": test accuracy 0." in line for line in lines) == 6
    assert sum(": attacking: " in line for line in lines) == 6
    assert sum(": kept with shortened steps (number of tensors): 7 (" in line for line in lines) == 6
    assert lines[:2] == ["defense: the plug-in's gradcam_ae", "attack: the plug-in's uniform_noise"]
    assert len(lines) == 26, result.stderr  # and nothing else
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long  # two runs; the tests above and below run the same script with the plug-in
@pytest.mark.parametrize(
    "defense",
    [
        {
            "defense_type": "gradcam_ae",
            "defense_params": {"profile": "paper", "probe_size": 32, "map_size": 32, "epochs": 20},
        },
        {"defense_type": "multikrum", "byzantine_client_num": 1, "krum_param_m": 5},
    ],
    ids=lambda defense: defense["defense_type"],
)
def test_a_stock_script_runs_with_the_defense_that_its_yaml_names(tmp_path, defense) -> None:
    result = run(PROJECT / "main.py", "--cf", config(tmp_path, **defense))
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(": test accuracy 0.") == 3
    assert result.stderr.count(": left out ") == 3


def test_the_record_folder_holds_lines_and_pictures(tmp_path) -> None:
    params = {
        "profile": "paper",
        "probe_size": 32,
        "map_size": 32,
        "epochs": 20,
        "record_dir": str(tmp_path / "record"),
    }
    result = run(PROJECT / "main.py", "--cf", config(tmp_path, defense_type="gradcam_ae", defense_params=params))
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (tmp_path / "record").iterdir()}
    assert names == {"rounds.jsonl", "metrics.jsonl"} | {
        f"round-{number:03d}-{kind}.png" for number in (1, 2, 3) for kind in ("heat-maps", "errors")
    }
    lines = [json.loads(line) for line in (tmp_path / "record" / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert [client["client"] for client in lines[0]["clients"]] == list(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py", "--cf", "x.yaml"], "there is no script nowhere.py"),
        ([PROJECT / "main.py", "--cf", "nowhere.yaml"], "error: The configuration nowhere.yaml cannot be read"),
        ([PROJECT / "main.py", "--cf=nowhere.yaml"], "error: The configuration nowhere.yaml cannot be read"),
        ([PROJECT / "main.py", "--cf", PROJECT / "main.py"], "is not YAML"),
        ([], "usage: python -m fedml_gradcam_ae SCRIPT.py --cf CONFIG.yaml"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_message(arguments, message) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistake_in_the_yaml_is_answered_in_one_message(tmp_path) -> None:
    result = run(PROJECT / "main.py", "--cf", config(tmp_path, defense_type="gradcam_ea"))
    assert result.returncode == 2
    assert result.stderr.startswith("error: Unknown defense_type 'gradcam_ea'. Did you mean 'gradcam_ae'? Valid: ")
    assert "Traceback" not in result.stderr


def test_a_script_without_arguments_runs(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.argv[1:])")
    result = run(script)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_certificates_are_made(tmp_path) -> None:
    result = run("certificates", "--clients", 1, "--out", "certs", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "certificate: certs/rank-{rank}.pem" in result.stdout
    assert (tmp_path / "certs" / "rank-1.key").exists()
