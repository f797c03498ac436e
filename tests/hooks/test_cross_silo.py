"""Cross-silo over gRPC on loopback, with a real server process, whatever its clients do."""

import contextlib
import json
import os
import pickle
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

grpc = pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from silo_processes import CHECK, FINISH, INIT, MAIN, PATIENCE, SYNC, Puppet, Silo, honest, wait_for  # noqa: E402
from test_round import broken  # noqa: E402
from tiny import state_of, tiny_cnn  # noqa: E402


@pytest.fixture
def silo(tmp_path):
    """Starts federations, and leaves no process behind."""
    with contextlib.ExitStack() as stack:

        def start(clients=3, puppets=(1, 2, 3), rounds=3, may_end=False, **flat):
            main = flat.pop("main", None)
            made = Silo(tmp_path, clients, rounds, **flat)
            made.main = main or made.main
            stack.callback(made.close)
            made.start_server(may_end)
            made.puppets = [Puppet(made, rank) for rank in puppets]
            for puppet in made.puppets:
                stack.callback(puppet.close)
            for puppet in made.puppets:
                if puppet.rank <= clients:
                    puppet.online()
            return made

        start.stack = stack
        yield start


def all_receive(puppets, *kinds):
    return [puppet.receive(*kinds) for puppet in puppets]


def end(silo, puppets):
    all_receive(puppets, SYNC, FINISH)
    for puppet in puppets:
        puppet.finished()
    silo.wait_for_end()


def left_out(line):
    return {client["client"]: client["reason"] for client in line["clients"] if client["excluded"]}


def test_plain_clients_and_a_defended_server(silo) -> None:
    made = silo(clients=2, puppets=(), rounds=2)
    clients = [made.start_client(rank) for rank in (1, 2)]
    made.wait_for_end()
    assert [client.wait(30) for client in clients] == [0, 0]
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1, 2], [1, 2]]
    assert [[client["samples"] for client in line["clients"]] for line in made.rounds()] == [[20, 21], [20, 21]]
    assert made.log.read_text().count(": test accuracy ") == 2


KINDS = ["NaN", "missing key", "extra key", "another shape", "another dtype", "empty", "no mapping", "no tensor"]


def test_garbage_is_left_out_and_reported_and_every_round_completes(silo) -> None:
    made = silo(rounds=len(KINDS) + 3)
    first, second, third = made.puppets
    all_receive(made.puppets, INIT)
    garbage = [broken(honest(2), kind) for kind in KINDS]
    for number, model in enumerate([*garbage, None, None, None], 1):
        first.upload()
        third.upload()
        if number == len(KINDS) + 1:
            second.upload(samples=-3)
        elif number == len(KINDS) + 2:
            second.upload({"0.weight": torch.zeros(8_000_000)})  # 32 MB where some kB are right
        elif number == len(KINDS) + 3:
            second.send_bytes(b"\x80\x04not a pickle")
        else:
            second.upload(model)
        if number < len(KINDS) + 3:
            all_receive(made.puppets, SYNC)
    end(made, made.puppets)
    lines = made.rounds()
    assert [set(left_out(line)) for line in lines] == [{2}] * (len(KINDS) + 3)
    reasons = [left_out(line)[2] for line in lines]
    words = ["NaN", "missing", "do not belong", "shape", "torch.float64", "missing", "mapping", "must be a tensor"]
    words += ["positive finite number, found -3", "bytes, where at most", "the pickle instruction 0x6e"]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True)), reasons


class Exploit:
    """What a malicious client would send: unpickling it runs a shell command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_pickle_does_nothing_but_get_reported(silo, tmp_path) -> None:
    made = silo(clients=2, puppets=(1, 2), rounds=1)
    first, second = made.puppets
    all_receive(made.puppets, INIT)
    marker = tmp_path / "the-server-was-mine"
    first.upload()
    second.upload({"0.weight": Exploit(marker)})
    end(made, made.puppets)
    assert not marker.exists()
    assert left_out(made.rounds()[0])[2] == (
        "names code: a message may hold tensors, arrays and plain values only, found posix.system"
    )
    pickle.loads(pickle.dumps(Exploit(marker)))
    assert marker.exists()  # the exploit works: the test means something


def test_uploads_that_nobody_asked_for_are_ignored_and_reported(silo) -> None:
    made = silo(clients=2, puppets=(1, 2, 3), rounds=2)
    first, second, stranger = made.puppets
    members = [first, second]
    all_receive(members, INIT)
    first.upload(samples=20)
    first.upload({"garbage": 1}, samples=999)  # the same round's upload again
    stranger.upload(samples=999)
    stranger.online()
    second.upload(samples=21)
    all_receive(members, SYNC)
    for member in members:
        member.upload(samples=22)
    end(made, members)
    samples = [[client["samples"] for client in line["clients"]] for line in made.rounds()]
    assert samples == [[20, 21], [22, 22]]
    log = made.log.read_text()
    assert "client 1: an upload was ignored: it was not asked for, or has come before" in log
    assert log.count("client 3: a message of a client that is not in the federation was dropped") == 2


def test_a_round_goes_on_without_a_client_that_does_not_answer_and_drops_its_late_upload(silo) -> None:
    made = silo(rounds=3, client_timeout=5.0, minimum_clients=2)
    first, second, third = made.puppets
    all_receive(made.puppets, INIT)
    first.upload()
    second.upload()  # the third is silent
    all_receive(made.puppets, SYNC)
    third.upload(samples=777)  # for round 1, in round 2
    time.sleep(0.3)
    first.upload()
    second.upload()
    third.upload(samples=33)  # for round 2
    all_receive(made.puppets, SYNC)
    for puppet in made.puppets:
        puppet.upload()
    end(made, made.puppets)
    clients = [{client["client"]: client["samples"] for client in line["clients"]} for line in made.rounds()]
    assert clients == [{1: 20, 2: 20}, {1: 20, 2: 20, 3: 33}, {1: 20, 2: 20, 3: 20}]
    log = made.log.read_text()
    assert "round 1: going on without clients 3" in log
    assert "round 2: client 3: an upload was ignored: it is for an earlier round" in log


def test_a_round_needs_its_minimum_of_clients(silo) -> None:
    made = silo(rounds=1, client_timeout=1.0, minimum_clients=2)
    first, second, _third = made.puppets
    all_receive(made.puppets, INIT)
    first.upload()
    made.wait_for_log("round 1: 1 of 3 clients answered in 1 s, and minimum_clients is 2: still waiting")
    second.upload()
    made.wait_for_log("round 1: going on without clients 3")
    made.wait_for_end()
    assert [client["client"] for client in made.rounds()[0]["clients"]] == [1, 2]


@pytest.mark.long
def test_a_client_that_is_killed_and_started_again_comes_back(silo) -> None:
    """Real clients: one is killed in a round, the run goes on, and ends in order with the new one."""
    made = silo(clients=2, puppets=(1,), rounds=6, client_timeout=3.0, minimum_clients=1)
    (first,) = made.puppets
    client = made.start_client(2)
    first.receive(INIT)
    first.upload()
    first.receive(SYNC)
    made.wait_for_log("round 1: test accuracy")
    client.kill()
    client.wait()
    first.upload()  # if the killed one has answered round 2 before, round 3 goes on without it
    for _ in range(2):
        first.receive(SYNC)
        first.upload()
    made.wait_for_log("going on without clients 2")
    back = made.start_client(2)
    made.wait_for_log("client 2 is back")
    while first.receive(SYNC, FINISH).get_type() == SYNC and "round 6: test accuracy" not in made.log.read_text():
        time.sleep(1.0)
        first.upload()
    first.finished()
    made.wait_for_end()
    assert back.wait(30) == 0
    took_part = [{client["client"] for client in line["clients"]} for line in made.rounds()]
    assert len(took_part) == 6
    assert {1} in took_part
    assert took_part[-1] == {1, 2}


def test_a_client_that_is_not_there_when_a_round_starts(silo) -> None:
    made = silo(clients=2, puppets=(1,), rounds=1, client_timeout=1.0)
    (first,) = made.puppets
    made.wait_for_log("starting without clients 2")
    first.receive(INIT)
    first.upload()
    first.receive(SYNC, FINISH)
    first.finished()
    made.wait_for_end()
    assert "client 2 cannot be reached" in made.log.read_text()


def test_when_nobody_is_left_the_global_model_stays(silo) -> None:
    made = silo(clients=2, puppets=(1, 2), rounds=2)
    all_receive(made.puppets, INIT)
    for puppet in made.puppets:
        puppet.upload(broken(honest(1), "NaN"))
    model = all_receive(made.puppets, SYNC)[0].get("model_params")
    assert all(torch.equal(tensor, model[name]) for name, tensor in state_of(tiny_cnn()).items())
    for puppet in made.puppets:
        puppet.upload()
    end(made, made.puppets)
    assert [line["global_model_stays"] for line in made.rounds()] == [True, False]


@pytest.mark.long
def test_a_removed_client_is_released_by_a_restart(silo, tmp_path) -> None:
    """Client 2 uploads what no defense likes in rounds 1 and 2, is voted out for good, and comes back."""
    params = {
        "profile": "paper",
        "probe_size": "native",
        "map_size": "native",
        "epochs": 5,
        "alpha": 10.0,
        "permanent": True,
    }
    defense = {"enable_defense": True, "defense_type": "gradcam_ae", "defense_params": params}
    defense["defense_params"]["record_dir"] = str(tmp_path / "record")
    state = {"checkpoint_dir": str(tmp_path / "state"), "resume": True}
    made = silo(clients=2, puppets=(1, 2), rounds=6, defense_args=defense, **state)
    first, second = made.puppets
    for number in range(1, 5):
        all_receive(made.puppets, INIT, SYNC)
        first.upload()
        second.upload(broken(honest(2), "NaN") if number < 3 else None)
    all_receive(made.puppets, SYNC)  # round 5 is asked for once round 4 is saved
    made.kill_server()
    text = made.config.read_text().replace("  resume: true", "  resume: true\n  release: [2]")
    made.config.write_text(text)
    made.start_server()
    all_receive(made.puppets, CHECK)
    for puppet in made.puppets:
        puppet.online()
    for _ in (5, 6):
        all_receive(made.puppets, SYNC)
        for puppet in made.puppets:
            puppet.upload()
    end(made, made.puppets)
    reasons = [left_out(line).get(2) for line in made.rounds()]
    assert "NaN" in reasons[0]
    assert reasons[2:] == ["voted out for good in round 3"] * 2 + [None, None]


@pytest.mark.long
def test_a_server_that_is_killed_goes_on_where_it_was(silo, tmp_path) -> None:
    """Model, flags and permanent removals; the clients were there all the time."""
    params = {
        "profile": "paper",
        "probe_size": "native",
        "map_size": "native",
        "epochs": 5,
        "alpha": 0.5,
        "permanent": True,
    }
    defense = {
        "enable_defense": True,
        "defense_type": "gradcam_ae",
        "defense_params": {**params, "record_dir": str(tmp_path / "record")},
    }
    flat = {"defense_args": defense, "checkpoint_dir": str(tmp_path / "state"), "resume": True}

    def play(number_of_kills):
        made = silo(rounds=6, **flat)
        for number in range(1, 7):
            models = [m.get("model_params") for m in all_receive(made.puppets, INIT, SYNC)]
            if number == 4 and number_of_kills:
                made.kill_server()
                made.start_server()
                all_receive(made.puppets, CHECK)
                for puppet in made.puppets:
                    puppet.online()
                again = [m.get("model_params") for m in all_receive(made.puppets, SYNC)]
                assert all(torch.equal(models[0][name], again[0][name]) for name in models[0])
                assert "going on after round 3" in made.log.read_text()
            for puppet in made.puppets:
                puppet.upload(
                    {n: t + 0.001 * number if t.is_floating_point() else t for n, t in honest(puppet.rank).items()}
                )
        end(made, made.puppets)
        lines = made.rounds()
        made.close()
        for puppet in made.puppets:
            puppet.close()
        for path in [*(tmp_path / "record").iterdir(), *(tmp_path / "state").iterdir(), made.log]:
            path.unlink()
        for line in lines:
            del line["run"], line["seconds"]
        return lines

    undisturbed, killed = play(0), play(1)
    assert [line["round"] for line in killed] == [1, 2, 3, 4, 5, 6]
    assert killed == undisturbed
    assert any("voted out for good" in (client["reason"] or "") for client in killed[-1]["clients"])


def test_the_same_yaml_gives_the_same_verdicts_as_in_the_simulator(silo, plugin, monkeypatch, tmp_path) -> None:
    """The uploads of a simulated run, sent again by puppets: scores, flags, votes and attackers agree."""
    import fedml

    from simulation import simulate

    params = {"profile": "paper", "probe_size": "native", "map_size": "native", "epochs": 20, "alpha": 0.5}
    attack = {
        "enable_attack": True,
        "attack_type": "constrained_perturbation",
        "attack_params": {"attackers": 2, "steps": 3, "images": 16},
    }
    defense = {"enable_defense": True, "defense_type": "gradcam_ae"}
    uploads = []
    hooked = fedml.simulation.sp.fedavg.FedAvgAPI
    inner = hooked._aggregate

    def recording(self, w_locals):
        uploads.append([(samples, OrderedDict(model)) for samples, model in w_locals])
        return inner(self, w_locals)

    monkeypatch.setattr(hooked, "_aggregate", recording)
    simulated = tmp_path / "simulated"
    sizes = {"client_num_in_total": 4, "client_num_per_round": 4, "comm_round": 3}
    simulate(**sizes, **attack, **defense, defense_params={**params, "record_dir": str(simulated)})

    deployed = {**defense, "defense_params": {**params, "record_dir": str(tmp_path / "record")}}
    made = silo(clients=4, puppets=(1, 2, 3, 4), rounds=3, defense_args=deployed, attack_args=attack)
    for round in uploads:
        all_receive(made.puppets, INIT, SYNC)
        for puppet, (samples, model) in zip(made.puppets, round, strict=True):
            puppet.upload(model, samples)
    end(made, made.puppets)

    expected = [json.loads(line) for line in (simulated / "rounds.jsonl").read_text().splitlines()]
    assert sum(client["malicious"] for client in expected[0]["clients"]) == 2
    for ours, theirs in zip(made.rounds(), expected, strict=True):
        assert ours["threshold"] == pytest.approx(theirs["threshold"], rel=1e-4)
        for here, there in zip(ours["clients"], theirs["clients"], strict=True):
            assert here["client"] == there["client"] + 1  # ranks count from 1
            assert here["score"] == pytest.approx(there["score"], rel=1e-4)
            for name in ("samples", "flagged", "excluded", "malicious", "reason"):
                assert here[name] == there[name]


def test_clients_that_end_before_the_last_round_are_not_waited_for(silo) -> None:
    made = silo(clients=2, puppets=(1, 2), rounds=5)
    first, second = made.puppets
    all_receive(made.puppets, INIT)
    first.upload()
    second.finished()  # this round goes on with the first client alone
    first.receive(SYNC)
    first.finished()
    made.wait_for_end()
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1]]
    assert "all clients have ended: stopping after round 1 of 5" in made.log.read_text()


def test_resuming_from_nothing_starts_with_round_1(silo, tmp_path) -> None:
    made = silo(clients=1, puppets=(1,), rounds=1, resume=True, checkpoint_dir=str(tmp_path / "none"))
    made.wait_for_log("nothing to resume from")
    made.puppets[0].receive(SYNC)  # the client may have had its first model, of the server before this one
    made.puppets[0].upload()
    end(made, made.puppets)


def test_a_server_that_is_killed_in_round_1_calls_the_clients_that_wait_for_it(silo, tmp_path) -> None:
    made = silo(clients=2, puppets=(1, 2), rounds=1, resume=True, checkpoint_dir=str(tmp_path / "state"))
    all_receive(made.puppets, SYNC)
    made.puppets[0].upload()
    made.kill_server()
    made.start_server()
    all_receive(made.puppets, CHECK)
    for puppet in made.puppets:
        puppet.online()
    for puppet, message in zip(made.puppets, all_receive(made.puppets, SYNC), strict=True):
        assert (message.get("round_number"), message.get("rounds")) == (1, 1)
        puppet.upload()
    end(made, made.puppets)
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1, 2]]


@pytest.mark.parametrize("content", [b"torn", None])
def test_a_state_that_cannot_be_used_ends_the_server_with_one_message(silo, tmp_path, content) -> None:
    (tmp_path / "state").mkdir()
    name = "server.pt" if content is None else "server.safetensors"
    (tmp_path / "state" / name).write_bytes(content or b"anything")
    made = silo(clients=1, puppets=(), resume=True, checkpoint_dir=str(tmp_path / "state"), may_end=True)
    assert made.server.wait(PATIENCE) == 2
    log = made.log.read_text()
    assert f"error: The checkpoint {tmp_path / 'state' / name} cannot be used: it is" in log
    assert "Traceback" not in log


def test_a_client_that_never_answers_a_call_holds_up_nobody(silo) -> None:
    made = silo(clients=2, puppets=(), rounds=3, client_timeout=3.0, end_timeout=1.0)
    first, second = made.puppets = [Puppet(made, rank) for rank in (1, 2)]
    silo.stack.callback(first.close)
    silo.stack.callback(second.close)
    second.answers.clear()
    for puppet in made.puppets:
        puppet.online()
    for kind in (INIT, SYNC, SYNC):
        first.receive(kind)
        first.upload()
        made.wait_for_log("going on without clients 2")
    first.receive(SYNC)
    first.finished()
    made.wait_for_end()
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1]] * 3
    assert "ending, although clients 2 have not reported that they ended" in made.log.read_text()


def test_strange_messages_break_nothing(silo) -> None:
    """Statuses and round numbers of any type, ends and greetings of a client that was not asked, and far too many."""
    made = silo(clients=2, puppets=(), rounds=2)
    first, second = made.puppets = [Puppet(made, rank) for rank in (1, 2)]
    silo.stack.callback(first.close)
    silo.stack.callback(second.close)
    first.finished()  # before it was ever there
    for status in (None, 5, [1], {"ONLINE": 1}, torch.ones(2), "online"):
        second.send(5, client_status=status, client_process=status)
    first.send(0)
    for puppet in made.puppets:
        puppet.online()
    all_receive(made.puppets, INIT)
    first.upload(samples=666, round_number=7)
    for _ in range(50):
        second.online()
    first.upload(round_number=1)
    second.upload(round_number=torch.ones(2))
    second.finished()
    all_receive([first], SYNC)
    first.upload(samples=666, round_number=1)
    first.upload(round_number=2)
    end(made, [first])
    samples = [{client["client"]: client["samples"] for client in line["clients"]} for line in made.rounds()]
    assert samples == [{1: 20, 2: None}, {1: 20}]
    assert "round_number: expected a valid integer, found a Tensor" in left_out(made.rounds()[0])[2]
    log = made.log.read_text()
    assert "client 1: it reports that it has ended, but was never online: ignored" in log
    assert "client 2: a message was dropped: client_status: expected 'ONLINE', " in log
    assert "client 1: an upload was ignored: it was not asked for, or has come before" in log
    assert 2 <= log.count("client 2 is back") < 30
    assert "Traceback" not in log


@pytest.mark.long
def test_clients_under_the_plugin_follow_the_servers_rounds(silo, tmp_path) -> None:
    """A round that is trained twice, for a server that was killed and for the next one, ends no client early."""
    made = silo(clients=2, puppets=(1,), rounds=3, resume=True, checkpoint_dir=str(tmp_path / "state"))
    (first,) = made.puppets
    client = made.start_client(2, plugin=True)
    first.receive(SYNC)
    first.upload()
    first.receive(SYNC)  # round 2, which the client trains for this server, and again for the next one
    time.sleep(3)
    made.kill_server()
    made.start_server()
    first.receive(CHECK)
    first.online()
    for number in (2, 3):
        assert first.receive(SYNC).get("round_number") == number
        first.upload(round_number=number)
    first.receive(SYNC, FINISH)
    first.finished()
    made.wait_for_end()
    assert client.wait(30) == 0
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1, 2]] * 3
    assert "has ended, before the last round" not in made.log.read_text()


def test_what_the_defense_cannot_work_with_ends_the_server_at_the_start(silo) -> None:
    params = {"target_layer": "conv9"}
    nonsense = {"enable_defense": True, "defense_type": "gradcam_ae", "defense_params": params}
    made = silo(clients=2, puppets=(), rounds=2, defense_args=nonsense, may_end=True)
    made.server.wait(PATIENCE)
    assert made.server.returncode == 2
    log = made.log.read_text()
    assert "error: target_layer: the network has no module 'conv9'." in log
    assert "Traceback" not in log


@pytest.mark.parametrize("late", [False, True])
def test_a_defense_that_fails_ends_the_server_with_its_message(silo, late) -> None:
    """In the thread that gets the last upload, or in the one that waited for it."""
    failing = {"enable_defense": True, "defense_type": "gives_up"}
    main = MAIN.with_name("gives_up.py")
    made = silo(clients=2, puppets=(1, 2), rounds=2, main=main, defense_args=failing, client_timeout=2.0)
    first, second = made.puppets
    all_receive(made.puppets, INIT)
    first.upload()
    if not late:
        second.upload()
    made.server.wait(PATIENCE)
    assert made.server.returncode == 1
    assert "ValueError: this defense gives up" in made.log.read_text()


def test_an_idle_server_sleeps(silo) -> None:
    made = silo(clients=2, puppets=(1,))  # waits for client 2

    def asleep():
        """Whether no thread runs or waits for a processor, which does not depend on how busy the machine is."""
        time.sleep(0.03)
        threads = Path(f"/proc/{made.server.pid}/task").glob("*/stat")
        return all(thread.read_text().rsplit(")", 1)[1].split()[0] != "R" for thread in threads)

    # FedML's own loop never sleeps.
    wait_for(lambda: sum(asleep() for _ in range(50)) > 40, "the server to sleep most of the time")


def test_the_puppets_messages_are_fedmls_own(silo) -> None:
    """A plain pickle of a FedML message, as a client makes it, is decoded."""
    from fedml.core.distributed.communication.message import Message

    from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, decode_message

    message = Message(3, 1, 0)
    message.add_params("model_params", honest(1))
    read = decode_message(pickle.dumps(message), Budget(bytes=10_000_000))
    assert (read.type, read.sender, read.receiver) == (3, 1, 0)
    assert all(torch.equal(tensor, read.parameters["model_params"][name]) for name, tensor in honest(1).items())
