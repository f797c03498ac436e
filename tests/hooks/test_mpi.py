"""`backend: MPI`: real `mpirun` starts; attackers and defenders act as in the single-process simulator."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from federations import FEDERATIONS, SAMPLED, data, settings
from fedml_gradcam_ae.recording import events, recorder
from fedml_gradcam_ae.recording.events import RoundReport
from patience import PATIENCE
from simulation import distance, same, simulate
from tiny import state_of, tiny_cnn

ROOT = Path(__file__).parents[2]
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
MODULE = ("-m", "fedml_gradcam_ae")

pytestmark = [
    pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install mpi4py mpich"),
    pytest.mark.skipif(find_spec("mpi4py") is None, reason="no mpi4py: pip install mpi4py mpich"),
]


def mpirun(ranks, *command, cwd):
    """Start it with a home of its own; whatever hangs is ended, and the test fails."""
    tests = ROOT / "tests"
    (cwd / "home").mkdir()
    (cwd / "work").mkdir()
    environment = {
        "HOME": str(cwd / "home"),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, tests, tests / "hooks"))),
        "PATH": f"{Path(MPIRUN).parent}:/usr/bin:/bin",
        "MPLCONFIGDIR": str(cwd / "matplotlib"),
        "OMP_NUM_THREADS": "1",
    }
    version = subprocess.run([MPIRUN, "--version"], capture_output=True, text=True, check=True).stdout
    more = ["--oversubscribe"] if "Open MPI" in version else []
    if more and os.geteuid() == 0:
        more.append("--allow-run-as-root")
    return subprocess.run(
        [MPIRUN, *more, "-np", str(ranks), sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=cwd / "work",
        env=environment,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def over_mpi(tmp_path_factory):
    """What came of each federation, read from the folder where rank 0 wrote it."""
    folder = tmp_path_factory.mktemp("mpi")
    result = mpirun(SAMPLED + 1, ROOT / "tests/hooks/over_mpi.py", folder, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "NETWORK" not in result.stderr

    def read(name):
        return torch.load(folder / f"{name}.pt", weights_only=False)

    read.folder = folder
    return read


@pytest.fixture
def in_one_process(plugin, tmp_path):
    """The same federation under `backend: sp`: the final model and its rounds as they are recorded."""

    def run(name):
        heard = []
        torch.set_num_threads(1)
        with events.listening(heard.append):
            final = simulate(dataset=data(), **settings(name, str(tmp_path)))
        run.success = [e.values["Attack/Success"] for e in heard if "Attack/Success" in getattr(e, "values", {})]
        return final, [recorder.as_json(event) for event in heard if isinstance(event, RoundReport)]

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_with_neither_attack_nor_defense_a_run_is_fedmls_own_bit_for_bit(over_mpi) -> None:
    ours = over_mpi("plain")
    theirs = over_mpi("as shipped")["model"]
    count = "1.num_batches_tracked"
    assert int(ours["model"].pop(count)) == 4  # two batches a round
    assert 3 <= int(theirs.pop(count)) <= 4  # FedML cuts off the decimals of its mean
    assert same(ours["model"], theirs)
    start = state_of(tiny_cnn())
    del start[count]
    assert distance(ours["model"], start) > 1e-3
    assert json.loads(ours["rounds"]) == []
    assert ours["measured"] == [1, 2]


@pytest.mark.parametrize("name", [name for name in FEDERATIONS if name not in ("plain", "witness")])
def test_the_same_uploads_get_the_same_verdicts_as_in_one_process(over_mpi, in_one_process, name) -> None:
    mpi = over_mpi(name)
    final, rounds = in_one_process(name)
    theirs = json.loads(mpi["rounds"])
    assert len(rounds) == len(theirs) == FEDERATIONS[name]["comm_round"]
    for ours, other in zip(rounds, theirs, strict=True):
        assert ours.pop("seconds").keys() == other.pop("seconds").keys()
        assert ours.pop("threshold") == pytest.approx(other.pop("threshold"), abs=1e-5)
        for mine, its in zip(ours.pop("clients"), other.pop("clients"), strict=True):
            for number in ("score", "weight"):
                assert mine.pop(number) == pytest.approx(its.pop(number), abs=1e-5)
            assert mine == its
        assert ours == other
    assert distance(final, mpi["model"]) < 1e-5
    assert in_one_process.success == pytest.approx(mpi["success"])
    assert len(mpi["success"]) == (2 if name == "backdoor in parts" else 0)


def test_the_recorded_lines_are_the_same_as_in_one_process(over_mpi, in_one_process, tmp_path) -> None:
    in_one_process("gradcam_ae")
    (mine,) = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    record = over_mpi.folder / "gradcam_ae"
    (its,) = [json.loads(line) for line in (record / "rounds.jsonl").read_text().splitlines()]
    assert [client["client"] for client in its["clients"]] == [client["client"] for client in mine["clients"]]
    assert [client["malicious"] for client in its["clients"]].count(True) > 0
    for key in ("flagged", "excluded", "malicious", "samples"):
        assert [client[key] for client in its["clients"]] == [client[key] for client in mine["clients"]]
    scores = [client["score"] for client in mine["clients"]]
    assert len(set(scores)) == SAMPLED
    assert [client["score"] for client in its["clients"]] == pytest.approx(scores, abs=1e-5)
    names = {path.name for path in record.iterdir()}
    assert names == {"rounds.jsonl", "metrics.jsonl", "round-001-heat-maps.png", "round-001-errors.png"}


def test_krum_answers_with_one_of_the_uploads_and_is_reported_so(over_mpi) -> None:
    found = over_mpi("krum")
    (report,) = json.loads(found["rounds"])
    (kept,) = [i for i, client in enumerate(report["clients"]) if not client["excluded"]]
    assert distance(found["model"], found["uploads"][0][kept]) < 1e-6
    assert report["clients"][kept]["weight"] == 1


def test_multikrum_averages_two_of_the_uploads(over_mpi) -> None:
    found = over_mpi("multikrum")
    (report,) = json.loads(found["rounds"])
    kept = [i for i, client in enumerate(report["clients"]) if not client["excluded"]]
    assert len(kept) == 2
    average = {
        name: sum(report["clients"][i]["weight"] * found["uploads"][0][i][name] for i in kept)
        for name in found["model"]
        if found["model"][name].is_floating_point()
    }
    assert distance(average, found["model"]) < 1e-6


def test_a_defense_learns_who_uploaded_and_gets_the_servers_data_and_a_private_network(over_mpi) -> None:
    found = over_mpi("witness")
    seen = found["witness"]
    assert seen["prepared"] == "prepared"
    assert [[int(n) - 20 for n in samples] for samples in seen["samples"]] == seen["ids"]  # client i has 20 + i
    assert [len(set(ids)) for ids in seen["ids"]] == [SAMPLED, SAMPLED]
    assert seen["ids"][0] != seen["ids"][1] != list(range(SAMPLED))
    assert same(seen["global"][0], state_of(tiny_cnn()))
    assert distance(seen["global"][1], found["model"]) > 1e-3
    assert seen["private"]
    assert seen["test data"]
    assert seen["local data"] == [{}, {}]
    assert found["measured"] == [1, 2]


def test_attacks_change_the_model(over_mpi) -> None:
    plain = over_mpi("plain")["model"]
    assert distance(over_mpi("noise")["model"], plain) > 0.1
    assert all(float(over_mpi("byzantine")["model"][name].abs().max()) == 0 for name in ("0.weight", "5.weight"))
    assert same(over_mpi("flipping none")["model"], plain) is False  # sums in another order
    assert distance(over_mpi("flipping none")["model"], plain) < 1e-6
    assert distance(over_mpi("flipping some")["model"], plain) > 1e-3
    assert distance(over_mpi("flipped labels")["model"], plain) > 1e-3


def test_the_excepthook_is_given_back(over_mpi) -> None:
    assert over_mpi("hooks") == {"changed": True, "restored": True}


def test_the_example_runs_as_it_is_and_only_the_server_speaks(tmp_path) -> None:
    result = mpirun(
        5,
        *(*MODULE, ROOT / "configs/simulation/main.py"),
        *("--cf", ROOT / "configs/mpi/fedml_config.yaml"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    for line in (": attacking: ", ": left out ", ": test accuracy 0."):
        assert sum(line in found for found in lines) == 3, result.stderr
    bounded = sum(": kept with shortened steps" in found for found in lines)
    assert [line.split(":")[0] for line in lines[:2]] == ["defense", "attack"]
    assert len(lines) == 11 + bounded, result.stderr  # and nothing else
    assert list((tmp_path / "work").iterdir()) == []
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("where", "message", "started_by"),
    [
        ("judging", "rank 0 of 2 stops the run:|ValueError: this defense gives up", MODULE),
        ("training", "rank 1 of 2 stops the run:|ValueError: this client cannot train", ()),
        ("loading", "rank 1 of 2 stops the run:|ValueError: this client finds no data", ()),
        ("sending", "rank 0 of 2 stops the run:|ValueError: this message cannot be read", ()),
        ("leaving", "this client leaves", MODULE),
        ("world", "error: client_num_per_round: 2 needs 3 MPI ranks, .*, found 1; .* mpirun -np 3", MODULE),
    ],
)
def test_an_error_on_one_rank_ends_the_whole_run(tmp_path, where, message, started_by) -> None:
    ranks = 1 if where == "world" else 2
    result = mpirun(ranks, *started_by, ROOT / "tests/hooks/failing.py", where, cwd=tmp_path)
    assert result.returncode != 0
    for part in message.split("|"):
        assert re.search(part, result.stderr), result.stderr
    assert "goes on after" not in result.stdout
