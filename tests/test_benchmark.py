"""The benchmark harness: configuration, data, metrics, and one tiny benchmark from start to report."""

import json

import pytest
import torch
import yaml

from benchmark import __main__ as command
from benchmark import data
from benchmark.config import read_config
from benchmark.models import small_cnn
from benchmark.tables.check import check
from fedml_gradcam_ae.settings import SettingsError

TINY = {
    "name": "tiny",
    "data": {"name": "digits", "partition": "iid"},
    "model": {"name": "small_cnn"},
    "federation": {
        "clients": 4,
        "per_round": 4,
        "rounds": 3,
        "local_epochs": 1,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "batch_size": 64,
    },
    "attacks": [{"type": "uniform_noise", "attackers": 1}],
    "defenses": ["none", {"type": "gradcam_ae", "probe_size": 32, "map_size": 8, "epochs": 5}],
    "seeds": [0],
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "config.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_the_matrix_is_attacks_times_defenses_times_seeds_and_has_runs_without_attack(write) -> None:
    runs = read_config(write({**TINY, "seeds": [0, 1]})).runs()
    assert len(runs) == 2 * 2 * 2
    assert {(run.attack["type"], run.defense["type"]) for run in runs} == {
        (attack, defense) for attack in ("none", "uniform_noise") for defense in ("none", "gradcam_ae")
    }
    assert len({run.folder for run in runs}) == 8


def test_the_folder_names_everything_that_the_result_depends_on(write) -> None:
    first = read_config(write(TINY)).runs()[3].folder
    assert first == read_config(write({**TINY, "name": "renamed"})).runs()[3].folder
    changed = {**TINY, "federation": {**TINY["federation"], "rounds": 4}}
    assert first != read_config(write(changed)).runs()[3].folder
    assert first.startswith("uniform_noise--gradcam_ae--seed0--")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"federation": {"clients": 4}}, r"config\.yaml"),
        ({"attaks": []}, r"Unknown key 'attaks' in .* Did you mean 'attacks'\?"),
        ({"defenses": []}, "must be a list of types"),
        ({"attacks": [{"attackers": 2}]}, "each entry must be a type or a mapping with a type"),
        ({"data": {"name": "mnist"}}, "Unknown data set 'mnist'. Valid: cifar10, digits"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_wrong_configuration_is_refused(write, changes, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read_config(write({**TINY, **changes}))


def test_files_that_are_no_configuration(write, tmp_path) -> None:
    for content, message in (
        ("a: [", "is not YAML"),
        ("- a", "must hold keys such as federation:"),
        ("", "must hold keys such as federation:"),
    ):
        with pytest.raises(SettingsError, match=message):
            read_config(write(content))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


def test_digits_are_spread_over_the_clients_without_loss_and_the_test_set_is_apart(write) -> None:
    run = read_config(write(TINY)).runs()[0]
    loaded = data.load(run)
    images = [image for loader in loaded[5].values() for image in loader.dataset.tensors[0]]
    tests = {tuple(image.flatten().tolist()) for image in loaded[3].dataset.tensors[0]}
    assert len(images) == loaded[0] == sum(loaded[4].values())
    assert loaded[0] + loaded[1] == 1797
    distinct = {tuple(image.flatten().tolist()) for image in images}
    assert len(distinct) == len(images)
    assert not distinct & tests
    assert images[0].shape == (1, 32, 32)
    assert max(loaded[4].values()) - min(loaded[4].values()) <= 1


def test_the_seed_decides_the_partition(write) -> None:
    first, again, other = (data.iid(100, 7, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_the_small_cnn_has_maps_of_8_x_8() -> None:
    assert small_cnn()[:11](torch.rand(1, 1, 32, 32)).shape == (1, 64, 8, 8)


def test_a_benchmark_from_configuration_to_report_and_again(write, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(write(TINY)), "--out", str(out)]
    assert command.main(arguments) == 0
    first = capsys.readouterr().out
    rows = [row.split() for row in first.splitlines() if row.startswith(("none", "uniform_noise"))]
    assert [row[:2] for row in rows] == [
        ["none", "undefended"],
        ["none", "gradcam_ae"],
        ["uniform_noise", "undefended"],
        ["uniform_noise", "gradcam_ae"],
    ]
    assert (out / "table.txt").read_text() in first
    assert (out / "report.html").exists()
    folders = sorted(path.parent for path in out.glob("*/result.json"))
    assert len(folders) == 4
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        assert len(result["accuracy"]) == 3
    (defended,) = [folder for folder in folders if folder.name.startswith("uniform_noise--gradcam_ae")]
    lines = [json.loads(text) for text in (defended / "rounds.jsonl").read_text().splitlines()]
    assert sum(client["malicious"] for client in lines[0]["clients"]) == 1
    assert {path.suffix for path in defended.iterdir()} == {".png", ".jsonl", ".json", ".log"}

    assert check(out) == 0
    capsys.readouterr()

    stamps = {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}
    assert command.main(arguments) == 0
    second = capsys.readouterr().out
    assert second.startswith("4 of 4 simulations are finished already")
    assert (out / "table.txt").read_text() in second
    assert stamps == {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}


def test_the_same_configuration_gives_the_same_numbers(write, tmp_path) -> None:
    numbers = []
    for name in ("a", "b"):
        command.main(["run", str(write(TINY)), "--out", str(tmp_path / name)])
        results = [json.loads(path.read_text()) for path in sorted((tmp_path / name).glob("*/result.json"))]
        for result in results:
            for round in result["rounds"]:
                del round["seconds"]
        numbers.append(results)
    assert numbers[0] == numbers[1]


def test_an_interrupted_run_counts_as_not_run(write, tmp_path) -> None:
    out = tmp_path / "out"
    command.main(["run", str(write(TINY)), "--out", str(out)])
    (victim, *_rest) = sorted(out.glob("*/result.json"))
    whole = json.loads(victim.read_text())
    victim.unlink()
    command.main(["run", str(write(TINY)), "--out", str(out)])
    assert json.loads(victim.read_text())["accuracy"] == whole["accuracy"]
    assert len((victim.parent / "rounds.jsonl").read_text().splitlines() if whole["rounds"] else []) in (0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": [{"type": "uniform_noise", "attackers": 9}]}, "found 9 attackers, but there are 4 clients"),
        ({"defenses": [{"type": "gradcam_ae", "alhpa": 1}]}, "Did you mean 'alpha'?"),
        ({"defenses": ["gradcam"]}, "Unknown defense_type 'gradcam'"),
    ],
)
def test_what_a_simulation_could_not_take_is_refused_before_the_first_one(
    write, tmp_path, capsys, changes, message
) -> None:
    assert command.main(["run", str(write({**TINY, **changes})), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
