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
from fedml.ml.trainer.fedprox_trainer import FedProxModelTrainer

from federations import FEDERATIONS, SAMPLED, data, settings
from fedml_gradcam_ae.recording import events, recorder
from fedml_gradcam_ae.recording.events import RoundReport
from optimizers_over_mpi import BROKEN, KEYS, MORE, OPTIMIZERS, SEVERAL, STRONG, network
from patience import PATIENCE
from simulation import distance, same, simulate
from tiny import fedml_args, state_of, tiny_cnn

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


def without_counts(model):
    return {name: tensor for name, tensor in model.items() if tensor.is_floating_point()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_neither_attack_nor_defense_other_optimizers_are_fedmls_own_bit_for_bit(over_mpi, optimizer) -> None:
    ours, theirs = over_mpi(f"{optimizer} plain"), without_counts(over_mpi(f"{optimizer} as shipped")["model"])
    assert same(without_counts(ours["model"]), theirs)
    assert distance(theirs, state_of(network(optimizer))) > 1e-2
    assert json.loads(ours["rounds"]) == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_attack_that_changes_nothing_leaves_fedmls_own_result(over_mpi, optimizer) -> None:
    found, theirs = over_mpi(f"{optimizer} gently attacked"), over_mpi(f"{optimizer} as shipped")["model"]
    assert distance(without_counts(theirs), found["model"]) < 1e-6
    assert [len(round["clients"]) for round in json.loads(found["rounds"])] == [6 if optimizer in SEVERAL else 4] * 2
    assert found["measured"] == [1, 2]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_strong_attacker_and_a_broken_upload_are_left_out_and_reported(over_mpi, optimizer) -> None:
    found = over_mpi(f"{optimizer} defended")
    before = state_of(network(optimizer))
    for number, report in enumerate(json.loads(found["rounds"])):
        of = {client["client"]: client for client in report["clients"]}
        assert list(of) == list(range(6 if optimizer in SEVERAL else 4))
        assert [of[client]["malicious"] for client in of] == [client in (BROKEN, STRONG) for client in of]
        assert "NaN" in of[BROKEN]["reason"]
        assert of[STRONG]["excluded"]
        assert of[STRONG]["reason"] is None
        kept = [client for client in of if not of[client]["excluded"]]
        assert len(kept) == 2
        uploads = found["uploads"][number]
        mean = {name: sum(uploads[c][name] for c in kept) / 2 for name in without_counts(before)}
        assert distance(mean, found["means"][number]) < 1e-6


@pytest.mark.parametrize("optimizer", ["FedOpt", "FedOpt_seq"])
def test_the_defended_mean_is_the_pseudo_gradient_of_the_servers_optimizer(over_mpi, optimizer) -> None:
    found = over_mpi(f"{optimizer} defended")
    model = tiny_cnn()
    theirs = torch.optim.SGD(model.parameters(), lr=KEYS["server_lr"], momentum=KEYS["server_momentum"])
    for mean in found["means"]:
        for name, parameter in model.named_parameters():
            parameter.grad = parameter.detach() - mean[name]
        theirs.step()
    trained = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert distance(trained, found["model"]) < 1e-6
    assert distance(trained, found["means"][-1]) > 1e-4
    statistics = {name: found["model"][name] for name in ("1.running_mean", "1.running_var")}
    assert distance(statistics, found["means"][-1]) == 0


def test_clients_of_fedprox_have_its_proximal_term(over_mpi) -> None:
    found = over_mpi("proximal term")["uploads"][0]
    args = fedml_args(**MORE["proximal term"][1])
    for client, upload in enumerate(found):
        trainer = FedProxModelTrainer(tiny_cnn(), args)
        trainer.train(data(KEYS["batch_size"])[5][client], torch.device("cpu"), args)
        assert distance(without_counts(trainer.get_model_params()), upload) < 1e-6
    assert distance(without_counts(found[0]), over_mpi("FedProx plain")["uploads"][0][0]) > 1e-3


def test_with_equal_steps_fednova_is_fedavg_also_for_a_network_that_counts_batches(over_mpi) -> None:
    found = over_mpi("whole numbers")
    for uploads, mean in zip(found["uploads"], found["means"], strict=True):
        assert [int(upload["1.num_batches_tracked"]) for upload in uploads] == [int(mean["1.num_batches_tracked"])] * 6
    assert int(found["model"]["1.num_batches_tracked"]) == 4  # two batches a round
    assert distance(without_counts(found["model"]), over_mpi("FedAvg of six")["model"]) < 1e-5


def test_several_clients_on_a_rank_are_judged_as_in_one_process(over_mpi, plugin) -> None:
    name = "flipped labels on few ranks"
    heard = []
    with events.listening(heard.append):
        final = simulate(dataset=data(), **MORE[name][1])
    rounds = [recorder.as_json(event) for event in heard if isinstance(event, RoundReport)]
    for ours, other in zip(rounds, json.loads(over_mpi(name)["rounds"]), strict=True):
        for key in ("client", "malicious", "excluded", "samples"):
            assert [client[key] for client in ours["clients"]] == [client[key] for client in other["clients"]]
    assert distance(final, over_mpi(name)["model"]) < 1e-5


def test_attacks_change_the_model(over_mpi) -> None:
    plain = over_mpi("plain")["model"]
    assert distance(over_mpi("noise")["model"], plain) > 0.1
    assert all(float(over_mpi("byzantine")["model"][name].abs().max()) == 0 for name in ("0.weight", "5.weight"))
    assert same(over_mpi("flipping none")["model"], plain) is False  # sums in another order
    assert distance(over_mpi("flipping none")["model"], plain) < 1e-6
    assert distance(over_mpi("flipping some")["model"], plain) > 1e-3
    assert distance(over_mpi("flipped labels")["model"], plain) > 1e-3


def test_the_excepthook_and_fedmls_classes_are_given_back(over_mpi) -> None:
    assert over_mpi("hooks") == {"changed": True, "restored": True, "classes": True}


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
        ("world", "^error: client_num_per_round: 2 needs 3 MPI ranks, .*, found 2; .* mpirun -np 3", MODULE),
        ("optimizer", "^error: federated_optimizer: FedGKT would ignore enable_defense here .* no models", ()),
    ],
)
def test_an_error_on_one_rank_ends_the_whole_run_and_a_refusal_is_printed_once(
    tmp_path, where, message, started_by
) -> None:
    result = mpirun(2, *started_by, ROOT / "tests/hooks/failing.py", where, cwd=tmp_path)
    assert result.returncode != 0
    for part in message.split("|"):
        found = re.findall(part, result.stderr, re.MULTILINE)
        assert len(found) == 1 if part.startswith("^") else found, result.stderr
    assert "goes on after" not in result.stdout


@pytest.mark.long
def test_a_cross_silo_federation_leaves_out_its_poisoner_and_runs_no_code_from_it(tmp_path) -> None:
    """Client 3 uploads poisoned numbers in round 1, and code in round 2."""
    result = mpirun(4, ROOT / "tests/hooks/silo_over_mpi.py", "nowhere", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(": left out 1 of 3 clients: 3") == 2, result.stderr
    assert result.stderr.count("client 3: a message was not read: names code: ") == 1
    assert result.stderr.count(": test accuracy 0.") == 2
    assert "is back" not in result.stderr
    assert sorted(re.findall(r"rank (\d) is through", result.stdout)) == ["0", "1", "2", "3"]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("where", "ranks", "message"),
    [
        ("judging", 2, "rank 0 of 2 stops the run:|ValueError: this defense gives up"),
        pytest.param(
            *("training", 2, "rank 1 of 2 stops the run:|ValueError: this client cannot train"), marks=pytest.mark.long
        ),
        pytest.param(
            *("world", 1, "client_num_per_round: 1 needs 2 MPI ranks, .*, found 1; .* mpirun -np 2"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_error_on_one_rank_ends_a_cross_silo_run(tmp_path, where, ranks, message) -> None:
    result = mpirun(ranks, ROOT / "tests/hooks/silo_over_mpi.py", where, cwd=tmp_path)
    assert result.returncode != 0
    for part in message.split("|"):
        assert re.search(part, result.stderr), result.stderr
    assert "is through" not in result.stdout
