"""Rounds over gRPC while somebody attacks the server's port, and memory over many rounds; prints what it measured."""

import contextlib
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

grpc = pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from attacks_on_a_port import ATTACKS  # noqa: E402
from transports import SYNC, UPLOAD, Network, message, online, request  # noqa: E402

HERE = Path(__file__).parent


def play(network, server, at_server, clients, rounds, numbers=250_000):
    """Rounds of two clients with models of so many numbers; the seconds of each."""
    model = {"0.weight": torch.zeros(numbers)}
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        for rank in clients:
            server.send_message(message(SYNC, 0, rank, model_params=model, client_idx="0", round=number))
        for client, at_client in clients.values():
            at_client.get()
            client.send_message(message(UPLOAD, client.client_rank, 0, model_params=model, num_samples=20))
        uploads = {}
        while len(uploads) < len(clients):
            upload = at_server.get()
            if upload.get_type() == UPLOAD:
                uploads[upload.get_sender_id()] = upload
        assert all(torch.equal(each.get("model_params")["0.weight"], model["0.weight"]) for each in uploads.values())
        seconds.append(time.perf_counter() - start)
    return seconds


@contextlib.contextmanager
def federation(folder):
    network = Network(folder, clients=3)
    try:
        server, at_server = network.start(0, model_bytes=1_000_000)
        clients = {rank: network.start(rank) for rank in (1, 2)}
        yield network, server, at_server, clients
    finally:
        network.close()


@pytest.mark.long
@pytest.mark.parametrize("attack", ATTACKS)
def test_rounds_complete_under_an_attack(tmp_path, attack, capsys) -> None:
    with federation(tmp_path) as (network, server, at_server, clients):
        play(network, server, at_server, clients, rounds=5)
        usual = play(network, server, at_server, clients, rounds=40)
        content = tmp_path / "request"
        content.write_bytes(request(pickle.dumps(online(3, client_status="IDLE")), 3))
        command = [sys.executable, HERE / "attacks_on_a_port.py", attack, f"127.0.0.1:{network.ports[0]}", content]
        attacker = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
        try:
            assert attacker.stdout.readline()
            time.sleep(1)
            under_attack = play(network, server, at_server, clients, rounds=40)
            assert attacker.poll() is None
        finally:
            attacker.kill()
            attacker.wait()
        counts = dict(server.complaints.counts)
    before, after = sorted(usual)[20], sorted(under_attack)[20]
    with capsys.disabled():
        print(f"\n{attack}: a round takes {before:.4f} s, attacked {after:.4f} s ({after / before:.2f}); {counts}")


@pytest.mark.long
def test_memory_is_flat_over_500_rounds(tmp_path, capsys) -> None:
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with federation(tmp_path) as (network, server, at_server, clients):
        play(network, server, at_server, clients, rounds=100)
        before = resident()
        play(network, server, at_server, clients, rounds=400)
        growth = resident() - before
    with capsys.disabled():
        print(f"\n400 rounds: {growth / 1e6:.1f} MB more")
    assert growth < 50_000_000  # 800 uploads of 1 MB and 800 models would be 1,600 MB
