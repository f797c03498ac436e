"""Mutual TLS and the port, with real server and client processes."""

import contextlib
import pickle
import socket

import pytest

grpc = pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from fedml_gradcam_ae.hooks.cross_silo import certificates  # noqa: E402
from silo_processes import PATIENCE, Puppet, Silo, wait_for  # noqa: E402

FILES = {"certificate": "certs/rank-{rank}.pem", "key": "certs/rank-{rank}.key", "authority": "certs/authority.pem"}


@pytest.fixture
def silo(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = Silo(tmp_path, **options)
            stack.callback(made.close)
            return made

        make.stack = stack
        yield make


@pytest.mark.long
def test_a_federation_under_tls_with_a_stranger_at_the_port(silo, tmp_path) -> None:
    certificates.make(tmp_path / "certs", clients=2, days=10)
    made = silo(clients=2, rounds=2, tls=FILES, client_args={"tls": FILES})
    made.start_server()
    stranger = Puppet(made, 3)
    silo.stack.callback(stranger.close)
    with pytest.raises(grpc.RpcError):
        stranger.send_bytes(pickle.dumps("anything"))
    clients = [made.start_client(rank, plugin=True) for rank in (1, 2)]
    made.wait_for_end(2 * PATIENCE)
    assert [client.wait(PATIENCE) for client in clients] == [0, 0]
    assert [[client["client"] for client in line["clients"]] for line in made.rounds()] == [[1, 2], [1, 2]]
    assert [[client["samples"] for client in line["clients"]] for line in made.rounds()] == [[20, 21], [20, 21]]
    assert "no TLS" not in made.log.read_text()


@pytest.mark.long
def test_a_plain_client_ends_with_an_error_at_a_server_with_tls(silo, tmp_path) -> None:
    certificates.make(tmp_path / "certs", clients=2, days=10)
    made = silo(clients=2, rounds=1, tls=FILES)
    made.start_server()
    client = made.start_client(1)
    assert client.wait(2 * PATIENCE) != 0
    assert made.server.poll() is None
    made.kill_server()
    assert "UNAVAILABLE" in (tmp_path / "client-1.log").read_text()


def test_a_port_that_is_taken_ends_the_server_with_a_message_that_names_it(silo) -> None:
    made = silo(clients=2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", made.ports[0]))
        taken.listen()
        made.start_server(may_end=True)
        made.server.wait(PATIENCE)
    assert made.server.returncode == 2
    error = f"error: cannot listen on 127.0.0.1:{made.ports[0]}: another process listens there"
    lines = made.log.read_text().splitlines()  # what FedML prints may come behind it
    assert [line.startswith(error) for line in lines].count(True) == 1


def test_a_missing_certificate_ends_the_server_at_the_start(silo, tmp_path) -> None:
    made = silo(clients=2, tls=FILES)
    server = made.server = made._start(made.log, "-m", "fedml_gradcam_ae", made.main, "--rank", 0, "--role", "server")
    wait_for(lambda: server.poll() is not None, "the end of the server", log=made.log)
    assert server.returncode == 2
    path = tmp_path / "certs" / "rank-0.pem"
    assert f"error: server_args.tls.certificate: {path} cannot be read: No such file" in made.log.read_text()
