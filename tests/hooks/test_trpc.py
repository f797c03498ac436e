"""Cross-silo over torch's RPC: a federation ends, and so does one whose server fails."""

import contextlib

import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from patience import PATIENCE
from silo_processes import MAIN, Silo, free_ports

pytestmark = pytest.mark.long


@pytest.fixture
def federation(tmp_path):
    """Starts a server and clients that wait for each other, and leaves no process behind."""
    with contextlib.ExitStack() as stack:

        def start(clients, main=MAIN, **flat):
            (port,) = free_ports(1)
            (tmp_path / "master.csv").write_text(f"address,port\n127.0.0.1,{port}\n")
            comm = {"backend": "TRPC", "trpc_master_config_path": str(tmp_path / "master.csv")}
            made = Silo(tmp_path, len(clients), rounds=2, comm_args=comm, **flat)
            stack.callback(made.close)
            made.main, made._answers = main, lambda: True
            made.start_server()
            return made, [made.start_client(rank, **how) for rank, how in enumerate(clients, 1)]

        yield start


def test_a_federation_with_a_poisoner_ends_and_leaves_it_out(federation) -> None:
    krum = {"enable_defense": True, "defense_type": "multi_krum", "defense_params": {"malicious": 0, "kept": 2}}
    made, clients = federation([{"plugin": True}, {}, {"main": MAIN.with_name("poisoner.py")}], defense_args=krum)
    made.ends_without_the_poisoner(clients)


def test_a_server_that_fails_ends_the_clients(federation) -> None:
    failing, main = {"enable_defense": True, "defense_type": "gives_up"}, MAIN.with_name("gives_up.py")
    made, clients = federation([{"plugin": True, "main": main}] * 2, main=main, defense_args=failing)
    assert made.server.wait(PATIENCE) == 1
    assert "ValueError: this defense gives up" in made.log.read_text()
    assert all(client.wait(PATIENCE) != 0 for client in clients)
