"""The benchmark harness: configuration, data, metrics, and one tiny benchmark from start to report."""

import json
import threading
import time

import pytest
import torch
import yaml

from benchmark import __main__ as command
from benchmark import data
from benchmark.config import read_config
from benchmark.models import small_cnn
from benchmark.running.simulation import fedml_args
from benchmark.studies import held_out
from benchmark.studies.replay import __main__ as replay
from fedml_gradcam_ae.contract.settings import SettingsError

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
    "defenses": ["none", {"type": "gradcam_ae", "profile": "paper", "probe_size": 32, "map_size": 8, "epochs": 5}],
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


def test_further_matrices_have_their_own_watchers_and_nothing_runs_twice(write) -> None:
    also = [{"attacks": TINY["attacks"], "defenses": ["none", "krum"]}, {"attacks": ["mpaf"], "defenses": ["krum"]}]
    runs = read_config(write({**TINY, "watch": ["krum"], "defenses": ["none"], "also": also})).runs()
    found = {(run.attack["type"], run.defense["type"]): [entry["type"] for entry in run.watch] for run in runs}
    assert found == {
        ("none", "none"): ["krum"],
        ("uniform_noise", "none"): ["krum"],
        ("none", "krum"): [],
        ("uniform_noise", "krum"): [],
        ("mpaf", "krum"): [],
    }
    assert len(runs) == len(found)


def test_grids_run_on_validation_seeds_and_on_the_others(write) -> None:
    sweep = [{"type": "krum", "malicious": [1, 2]}]
    config = read_config(write({**TINY, "sweep": sweep, "validation_seeds": [7, 8], "seeds": [0]}))
    runs = [(run.seed, run.defense) for run in config.runs() if run.attack["type"] == "uniform_noise"]
    grid = [{"type": "krum", "malicious": 1}, {"type": "krum", "malicious": 2}]
    fixed = [{"type": "none"}, *({"type": kind} for kind in ("gradcam_ae",))]
    assert [(seed, kind["type"]) for seed, kind in runs if seed == 0][:2] == [(0, kind["type"]) for kind in fixed]
    assert [run for run in runs if run[1] in grid] == [(seed, entry) for seed in (0, 7, 8) for entry in grid]
    assert {seed for seed, kind in runs if kind not in grid} == {0}


def test_momentum_and_lost_uploads_reach_fedml_and_name_the_run(write) -> None:
    asked = {"drop_out": 0.2, "worker_momentum": 0.9, "server_momentum": [0.0, 0.5]}
    config = read_config(write({**TINY, "federation": {**TINY["federation"], **asked}}))
    found = [{key: getattr(fedml_args(run), key) for key in asked} for run in config.runs()[:8]]
    assert found[0] == {"drop_out": 0.2, "worker_momentum": 0.9, "server_momentum": 0.0}
    assert found[-1] == {"drop_out": 0.2, "worker_momentum": 0.9, "server_momentum": 0.5}
    without = read_config(write({**TINY, "federation": {**TINY["federation"], "drop_out": 0.0}})).runs()
    assert [run.folder for run in without] == [run.folder for run in read_config(write(TINY)).runs()]


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
        ({"federation": {**TINY["federation"], "per_round": 99}}, "per_round: 99 of 4 clients cannot take part"),
        ({"attaks": []}, r"Unknown key 'attaks' in .* Did you mean 'attacks'\?"),
        ({"defenses": []}, "must be a list of types"),
        ({"attacks": [{"attackers": 2}]}, "each entry must be a type or a mapping with a type"),
        ({"data": {"name": "mnist"}}, "Unknown data set 'mnist'. Valid: cifar10, digits"),
        ({"seeds": []}, "seeds"),
        ({"also": [{"attacks": ["none"]}]}, r"also\[0\].defenses is missing"),
        (
            {"also": [{"attack": [], "defenses": ["none"]}]},
            r"Unknown key 'attack' in .*also\[0\]",
        ),
        ({"also": ["krum"]}, r"also\[0\]"),
        ({"sweep": [{"type": "krum", "malicious": [1, 2]}]}, "sweep and validation_seeds belong together"),
        ({"validation_seeds": [7]}, "sweep and validation_seeds belong together"),
        (
            {"sweep": [{"type": "krum", "malicious": [1, 2]}], "validation_seeds": [0, 7]},
            "validation_seeds must not be among seeds, .* found 0 in both",
        ),
        ({"sweep": [{"type": "krum", "malicious": []}], "validation_seeds": [7]}, "at least one value, found none"),
        ({"sweep": [{"type": "krum", "malicious": 1}], "validation_seeds": [7]}, "krum has nothing to choose from"),
        (
            {
                "sweep": [{"type": "krum", "malicious": [1, 2]}],
                "validation_seeds": [7],
                "defenses": ["none", {"type": "krum", "malicious": 2}],
            },
            "either chosen or given, found .*'malicious': 2.* under sweep and under defenses",
        ),
        ({"sweep": ["krum"], "validation_seeds": [7]}, "each entry must be a mapping with a type, found 'krum'"),
        ({"sweep": "krum", "validation_seeds": [7]}, "must be a list of defenses"),
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
    arguments = ["run", str(write(TINY)), "--out", str(out), "--jobs", "1"]
    assert command.main(arguments) == 0
    first = capsys.readouterr().out
    rows = [row.split() for row in (out / "table.txt").read_text().splitlines()[2:6]]
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
        tests = lines_of(folder / "tests.jsonl")
        assert [line["round"] for line in tests] == [1, 2, 3]
        assert all(len(line["class_accuracy"]) == 10 for line in tests)
        measured = [line["Test/Acc"] for line in lines_of(folder / "metrics.jsonl") if "Test/Acc" in line]
        assert [line["accuracy"] for line in tests] == pytest.approx(measured)  # as FedML counts
        assert json.loads((folder / "result.json").read_text())["peak_memory_bytes"] > 1e8
    (defended,) = [folder for folder in folders if folder.name.startswith("uniform_noise--gradcam_ae")]
    lines = [json.loads(text) for text in (defended / "rounds.jsonl").read_text().splitlines()]
    assert sum(client["malicious"] for client in lines[0]["clients"]) == 1
    assert {path.suffix for path in defended.iterdir()} == {".png", ".jsonl", ".json", ".log"}

    assert command.main(["check", str(out)]) == 0
    capsys.readouterr()

    stamps = {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}
    assert command.main(arguments) == 0
    second = capsys.readouterr().out
    assert second.startswith("4 of 4 simulations are finished already")
    assert (out / "table.txt").read_text() in second
    assert stamps == {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}

    table = out / "results" / "accuracy.csv"
    table.write_text(table.read_text().replace("0.", "0.9", 1))
    assert command.main(["check", str(out)]) == 1
    assert "accuracy" in capsys.readouterr().out


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(out):
    """Everything that was measured, but for time and memory, by folder."""
    found = {}
    for result in sorted(out.glob("*/result.json")):
        rounds = result.parent / "rounds.jsonl"
        lines = lines_of(rounds) if rounds.exists() else []
        for line in lines:
            del line["run"], line["seconds"]
            for watched in line["watched"].values():
                del watched["seconds"]
        found[result.parent.name] = (lines, lines_of(result.parent / "tests.jsonl"))
    return found


def run(config, out, *more):
    return command.main(["run", str(config), "--out", str(out), *more])


WATCHED = {
    **TINY,
    "watch": ["krum", {"type": "gradcam_ae", "profile": "paper", "probe_size": 32, "map_size": 8, "alpha": [1.0, 2.0]}],
}


def test_watched_detectors_judge_every_run_also_one_without_attack_and_defense(write, tmp_path) -> None:
    config = {**WATCHED, "attacks": ["none"], "defenses": ["none"], "federation": {**TINY["federation"], "rounds": 1}}
    assert run(write(config), tmp_path / "out", "--jobs", "1") == 0
    ((lines, _),) = numbers(tmp_path / "out").values()
    assert set(lines[0]["watched"]) == {"krum", "gradcam_ae (alpha 1.0)", "gradcam_ae (alpha 2.0)"}
    assert all(len(watched["scores"]) == 4 for watched in lines[0]["watched"].values())


def test_whatever_holds_a_list_multiplies(write) -> None:
    config = {
        **TINY,
        "data": {"name": "digits", "partition": "dirichlet", "beta": [0.1, 0.5]},
        "federation": {**TINY["federation"], "local_epochs": [1, 2]},
        "attacks": [{"type": "mpaf", "scale": [1.0, 10.0]}, {"type": "uniform_noise", "attackers": [0, 2]}],
    }
    runs = read_config(write(config)).runs()
    assert len(runs) == 2 * 2 * (1 + 2 + 1) * 2
    assert len({run.folder for run in runs}) == len(runs)
    assert {run.attack.get("scale") for run in runs if run.attack["type"] == "mpaf"} == {1.0, 10.0}
    (noise,) = {str(run.attack["attackers"]) for run in runs if run.attack["type"] == "uniform_noise"}
    assert noise == "[0, 2]"  # client ids


def test_a_run_that_fails_is_reported_and_the_others_finish(write, tmp_path, capsys) -> None:
    config = {**TINY, "attacks": ["none"], "defenses": ["none", "3sigma_geo"]}
    assert run(write(config), tmp_path / "out", "--jobs", "1") == 1
    assert "FAILED, AttributeError" in capsys.readouterr().out
    (failed,) = (tmp_path / "out").glob("*/error.txt")
    assert "Traceback" in failed.read_text()
    assert not (failed.parent / "result.json").exists()
    assert len(numbers(tmp_path / "out")) == 1
    assert "AttributeError" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.long
def test_a_worker_that_is_killed_costs_one_run(write, tmp_path, capsys, monkeypatch) -> None:
    """The kernel kills for want of memory; here the test does, when the worker has begun its first run."""
    from benchmark.running import workers

    start = workers.Workers._start
    started = []

    def killed(self):
        process = start(self)
        started.append(process)
        if len(started) == 1:
            threading.Thread(target=kill, args=(process,), daemon=True).start()
        return process

    def kill(process):
        while not list((tmp_path / "out").glob("*/run.log")):
            time.sleep(0.01)
        process.kill()

    monkeypatch.setattr(workers.Workers, "_start", killed)
    assert run(write(TINY), tmp_path / "out", "--jobs", "2") == 1
    assert "its process ended with -9" in capsys.readouterr().out
    assert len(numbers(tmp_path / "out")) == 3
    assert run(write(TINY), tmp_path / "out", "--jobs", "1") == 0
    assert len(numbers(tmp_path / "out")) == 4


def test_a_worker_that_cannot_be_started_fails_its_runs(write, tmp_path, capsys, monkeypatch) -> None:
    from benchmark.running import workers

    def refuse(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers.Workers, "_start", refuse)
    assert run(write(TINY), tmp_path / "out", "--jobs", "2") == 1
    assert capsys.readouterr().out.count("no process could be started: [Errno 11]") >= 4


def test_list_names_what_a_configuration_may_name(capsys) -> None:
    assert command.main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("digits", "resnet18", "gradcam_ae", "constrained_perturbation", "fedml:krum"):
        assert name in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": [{"type": "uniform_noise", "attackers": 9}]}, "found 9 attackers, but there are 4 clients"),
        ({"defenses": [{"type": "gradcam_ae", "alhpa": 1}]}, "Did you mean 'alpha'?"),
        ({"defenses": ["gradcam"]}, "Unknown defense_type 'gradcam'"),
        ({"watch": ["krum", "flcert"]}, "flcert can only act, not watch, since it has clients start from different"),
        ({"watch": ["fedml:krum"]}, "fedml:krum can only act, not watch, since FedML's own types hand on a list"),
        ({"watch": ["multikrum"]}, "multikrum can only act, not watch, since FedML's own types hand on a list"),
        ({"watch": ["gradcam"]}, "Unknown type 'gradcam'. Did you mean 'gradcam_ae'?"),
        ({"also": [{"attacks": ["mpaf"], "defenses": ["none"], "watch": ["flcert"]}]}, "flcert can only act"),
    ],
)
def test_what_a_simulation_could_not_take_is_refused_before_the_first_one(
    write, tmp_path, capsys, changes, message
) -> None:
    assert command.main(["run", str(write({**TINY, **changes})), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_device_is_part_of_a_runs_name_only_where_it_is_not_the_processor(write) -> None:
    plain, named = (read_config(write({**TINY, **more})).runs() for more in ({}, {"device": "cpu"}))
    assert [run.folder for run in plain] == [run.folder for run in named]
    asked = read_config(write(TINY), "cuda").runs()
    assert {run.device for run in asked} == {"cuda"}
    assert not {run.folder for run in plain} & {run.folder for run in asked}
    assert [fedml_args(run[0]).using_gpu for run in (plain, asked)] == [False, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_before_anything_is_written(write, tmp_path, capsys) -> None:
    out = tmp_path / "out"

    def check(main, *arguments):
        assert main([*arguments, "--out", str(out)]) == 2
        assert "needs a GPU that PyTorch can use" in capsys.readouterr().err
        assert not out.exists()

    check(command.main, "run", str(write(TINY)), "--device", "cuda")
    config = str(write({**TINY, "device": "cuda"}))
    check(command.main, "run", config)
    check(replay.main, config, "--views", "8:10")
    check(held_out.main, config)
