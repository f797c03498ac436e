"""The gRPC transport: two ends in one process, whatever the other end does."""

import contextlib
import logging
import pickle
import socket
import threading
import time

import numpy
import pytest
import torch

grpc = pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from attacks_on_a_port import begin_call, closed, frame  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport import unfinished  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.receiving import PortTakenError  # noqa: E402
from fedml_gradcam_ae.hooks.cross_silo.transport.undelivered import UndeliveredError  # noqa: E402
from patience import PATIENCE  # noqa: E402
from silo_processes import wait_for  # noqa: E402
from transports import (  # noqa: E402
    CHECK,
    FINISH,
    METHOD,
    ONLINE,
    SYNC,
    UPLOAD,
    Network,
    message,
    online,
    pickled,
    request,
)

MODEL = {"0.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def network(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = Network(tmp_path, **options)
            stack.callback(made.close)
            return made

        yield make


def test_messages_go_both_ways_as_fedml_sends_them(network) -> None:
    made = network()
    server, at_server = made.start(0)
    client, at_client = made.start(1)
    client.send_message(message(UPLOAD, 1, 0, model_params=MODEL, num_samples=numpy.float32(20)))
    upload = at_server.get()
    assert (upload.get_type(), upload.get_sender_id(), upload.get_receiver_id()) == (UPLOAD, 1, 0)
    assert torch.equal(upload.get("model_params")["0.weight"], MODEL["0.weight"])
    assert (upload.get("num_samples"), type(upload.get("num_samples"))) == (20.0, float)
    server.send_message(message(SYNC, 0, 1, model_params=MODEL, client_idx="0", round=3))
    model = at_client.get()
    assert torch.equal(model.get("model_params")["0.weight"], MODEL["0.weight"])
    assert (model.get("client_idx"), model.get("round")) == ("0", 3)


def test_plain_fedml_talks_to_it_in_both_directions(network) -> None:
    from fedml.core.distributed.communication.grpc.grpc_comm_manager import GRPCCommManager

    made = network()
    server, at_server = made.start(0)
    plain = GRPCCommManager(str(made.table), client_rank=1, client_num=2)
    try:
        plain.send_message(online(1))
        assert at_server.get().get("client_status") == "ONLINE"
        server.send_message(message(SYNC, 0, 1, model_params=MODEL, client_idx="0"))
        read = pickle.loads(plain.grpc_servicer.message_q.get(timeout=PATIENCE))
        assert torch.equal(read.get("model_params")["0.weight"], MODEL["0.weight"])
    finally:
        plain.grpc_server.stop(None)


@pytest.mark.parametrize(
    ("content", "client", "kind"),
    [
        (pickled(0, 1, 0), 1, "schema: type"),
        (pickled([3], 1, 0), 1, "schema: type"),
        (pickled({}, 1, 0), 1, "schema: type"),
        (pickled(4, 1, 0), 1, "schema: type"),
        (pickled(True, 1, 0), 1, "schema: type"),
        (pickle.dumps(online("one")), 1, "schema: sender"),
        (pickle.dumps(online(numpy.zeros(3))), 1, "schema: sender"),
        (pickle.dumps(online(2)), 1, "schema: sender"),
        (pickle.dumps(online(1, receiver="x")), 1, "schema: receiver"),
        (pickle.dumps(online(1, receiver=None)), 1, "schema: receiver"),
        (pickle.dumps(online(1, receiver=2)), 1, "schema: receiver"),
        (pickle.dumps(online(1, client_status=numpy.zeros(3))), 1, "schema: client_status"),
        (pickle.dumps(online(1, client_status="RICH")), 1, "schema: client_status"),
        (pickle.dumps(online(1, client_os="x" * 65)), 1, "schema: client_os"),
        (pickle.dumps(online(1, sender_port="eighty")), 1, "schema: sender_port"),
        (pickle.dumps(online(1, sender_port=65536)), 1, "schema: sender_port"),
        (pickle.dumps(online(1, sender_ip="x" * 256)), 1, "schema: sender_ip"),
        (pickle.dumps(online(1, sender_ip="unix:/run/x")), 1, "schema: sender_ip"),
        (pickle.dumps(online(1, sender_ip="fe80::1%]:1/x")), 1, "schema: sender_ip"),
        (pickle.dumps(online(3)), 3, "stranger"),
        (pickle.dumps(online(-1)), -1, "request"),
    ],
)
def test_what_does_not_fit_is_dropped_and_counted(network, content, client, kind) -> None:
    made = network()
    server, at_server = made.start(0)
    made.post(content, client)
    made.post(pickle.dumps(online(2)), 2)
    assert at_server.get().get_sender_id() == 2  # the message before it is gone, and the server is not
    assert dict(server.complaints.counts) == {kind: 1}


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (2**70, "bits"),
        ("20", "found '20'"),
        (True, "found True"),
        ([20], "found a list"),
        (numpy.zeros(2), "found a ndarray"),
        (torch.tensor(20), "found a Tensor"),
        (None, "found None"),
    ],
)
def test_a_claim_that_is_no_plain_number_makes_a_refused_upload(network, claim, words) -> None:
    made = network()
    _, at_server = made.start(0)
    made.post(pickled(UPLOAD, 1, 0, model_params=MODEL, num_samples=claim), 1)
    upload = at_server.get()
    assert (upload.get_type(), upload.get_sender_id()) == (UPLOAD, 1)
    assert words in upload.get("model_params").reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x04not a pickle", ""),
        (b"", ""),
        (b"x" * 1_500_001, "it has 1500001 bytes, where at most 1400000 are taken"),
        (pickled(UPLOAD, 1, 0, model_params=MODEL, num_samples=1, sender_port=-1), "sender_port"),
        *(
            (pickled(UPLOAD, 1, 0, model_params=MODEL, num_samples=1, round_number=number), "round_number")
            for number in ("1", [1], 1.0, True, 2**31, 0, -1)
        ),
    ],
)
def test_a_message_that_cannot_be_read_stands_for_an_upload(network, content, words) -> None:
    made = network()
    _, at_server = made.start(0, model_bytes=100_000)
    made.post(content, 1)
    upload = at_server.get()
    assert (upload.get_type(), upload.get_sender_id()) == (UPLOAD, 1)
    assert isinstance(upload.get("model_params"), Refused)
    assert words in upload.get("model_params").reason


def test_a_client_drops_what_it_cannot_read(network) -> None:
    made = network()
    client, at_client = made.start(1)
    made.post(b"\x80\x04not a pickle", 0, rank=1)
    made.post(pickled(CHECK, 2, 1), 2, rank=1)  # only the server gives orders
    made.post(pickled(FINISH, 2, 1), 0, rank=1)
    made.post(pickled(CHECK, 0, 1), 0, rank=1)
    assert at_client.get().get_type() == CHECK
    assert client.complaints.counts.total() == 3


def test_ids_as_text_are_taken(network) -> None:
    made = network()
    _, at_server = made.start(0)
    made.post(pickle.dumps(online("1", "0")), 1)
    assert at_server.get().get_sender_id() == 1


def test_before_the_model_is_known_little_is_taken(network) -> None:
    made = network()
    transport = made.make(0)
    assert transport._intake.limits.message == 1_000_000


def test_what_is_expected_may_change(network) -> None:
    made = network()
    server, at_server = made.start(0)
    server.expect(100_000_000, [1])  # more than gRPC was told at the start: it listens anew
    made.post(pickle.dumps(online(2)), 2)
    made.post(b"x" * 70_000_000, 1)
    assert at_server.get().get_sender_id() == 1
    assert server.complaints.counts["stranger"] == 1


def test_an_address_is_learned_from_known_clients_and_never_replaces_the_table(network) -> None:
    made = network(clients=2, listed=1)
    server, at_server = made.start(0)
    for port in (7002, 7003):
        made.post(pickle.dumps(online(2, sender_ip="192.0.2.2", sender_port=port)), 2)
        at_server.get()
    made.post(pickle.dumps(online(1, sender_ip="192.0.2.2", sender_port=7001)), 1)
    at_server.get()
    assert server._address(2).target == "192.0.2.2:7002"
    assert server._address(1).target == f"127.0.0.1:{made.ports[1]}"


def test_two_servers_on_one_port_are_an_error_that_names_the_address(network) -> None:
    made = network()
    made.start(0)
    second = made.make(0)
    with pytest.raises(PortTakenError, match=rf"cannot listen on 127\.0\.0\.1:{made.ports[0]}: another process"):
        second.expect(1000, [1, 2])


def test_a_client_waits_for_its_server(network) -> None:
    made = network()
    client, _ = made.start(1)
    sending = threading.Thread(target=client.send_message, args=(online(1),))
    sending.start()
    time.sleep(0.3)
    _, at_server = made.start(0)
    assert at_server.get().get("client_status") == "ONLINE"
    sending.join(30)


def test_a_client_says_in_one_line_that_its_server_is_gone(network) -> None:
    made = network(client_args={"send_timeout": 0.5})
    client, _ = made.start(1)
    with pytest.raises(UndeliveredError) as failure:
        client.send_message(online(1))
    assert str(failure.value).startswith(f"127.0.0.1:{made.ports[0]}: ")
    assert "\n" not in str(failure.value)


# --- a server that sends ---


@contextlib.contextmanager
def stuck(port):
    """A port that takes connections and never answers."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", port))
        deaf.listen()
        yield


def test_a_receiver_that_never_answers_costs_no_more_than_the_deadline(network) -> None:
    made = network(server_args={"send_timeout": 1.0})
    server, _ = made.start(0)
    with stuck(made.ports[1]), pytest.raises(UndeliveredError, match=r"no answer in 1 s|attempt timed out"):
        server.send_message(message(SYNC, 0, 1, model_params=MODEL, client_idx="0"))


def test_a_receiver_without_an_address(network) -> None:
    made = network(clients=2, listed=1)
    server, _ = made.start(0)
    with pytest.raises(LookupError, match="no address of 2 is known"):
        server.send_message(message(CHECK, 0, 2))


# --- load ---


def test_unfinished_calls_do_not_block_uploads(network) -> None:
    made = network()
    server, at_server = made.start(0)
    release = threading.Event()

    def never():
        release.wait(60)
        yield b""

    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(made.channel()) for _ in range(40)]
        calls = [channel.stream_unary(METHOD).future(never()) for channel in channels]
        wait_for(lambda: len(server._receiver.unfinished) == 40, "the calls")
        made.post(pickle.dumps(online(1)), 1)
        assert at_server.get().get_sender_id() == 1
        assert not any(call.done() for call in calls)
        release.set()


def test_more_unfinished_calls_than_there_are_places_end_the_crowded_ones(network) -> None:
    made = network()
    server, at_server = made.start(0)
    server._receiver.unfinished.places = 4
    release = threading.Event()

    def never():
        release.wait(60)
        yield b""

    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(made.channel()).stream_unary(METHOD).future(never())
        wait_for(lambda: len(server._receiver.unfinished) == 1, "the first call")
        crowd = stack.enter_context(made.channel())
        calls = [crowd.stream_unary(METHOD).future(never()) for _ in range(3)]
        wait_for(lambda: len(server._receiver.unfinished) == 4, "the calls")
        made.post(pickle.dumps(online(1)), 1)
        assert at_server.get().get_sender_id() == 1
        wait_for(lambda: any(call.done() for call in calls), "a call to be ended")
        assert not alone.done()
        assert server.complaints.counts == {"call ended": 1}
        release.set()


def test_a_sender_of_a_byte_now_and_then_is_ended(network, monkeypatch) -> None:
    monkeypatch.setattr(unfinished, "GRACE", 0.5)
    made = network()
    server, _ = made.start(0)
    call = begin_call(f"127.0.0.1:{made.ports[0]}", size=100_000)
    wait_for(lambda: len(server._receiver.unfinished) == 1, "the call")
    call.sendall(frame(0, 0, 1, b"x"))
    wait_for(lambda: server.complaints.counts == {"call ended": 1}, "the end of the call")
    assert len(server._receiver.unfinished) == 0
    call.close()


def test_idle_connections_make_room(network, monkeypatch) -> None:
    """gRPC refuses those beyond the limit, so that the process's file limit is never reached; half of them go soon."""
    from fedml_gradcam_ae.hooks.cross_silo.transport import limits, progress

    monkeypatch.setattr(limits, "CONNECTIONS", 32)
    made = network()
    server, at_server = made.start(0)
    idle = [socket.create_connection(("127.0.0.1", made.ports[0])) for _ in range(100)]
    left = 16 if progress.SUPPORTED else 32
    wait_for(lambda: sum(not closed(each) for each in idle) <= left, "the connections that are too many to be closed")
    client, _ = made.start(1)
    client.send_message(online(1))
    assert at_server.get().get_sender_id() == 1
    if progress.SUPPORTED:
        assert sum(not closed(each) for each in idle) >= 10
        assert server.complaints.counts == {"connections": 1}
    for each in idle:
        each.close()


def test_a_slow_call_keeps_its_connection_where_idle_ones_are_closed(network, monkeypatch) -> None:
    from fedml_gradcam_ae.hooks.cross_silo.transport import limits, progress

    if not progress.SUPPORTED:
        pytest.skip("only Linux tells how many connections there are")
    monkeypatch.setattr(limits, "CONNECTIONS", 32)
    made = network()
    _, at_server = made.start(0)
    go_on = threading.Event()

    def messages():
        go_on.wait(30)
        yield request(pickle.dumps(online(1)), 1)

    with made.channel() as channel:
        answer = channel.stream_unary(METHOD).future(messages())
        idle = [socket.create_connection(("127.0.0.1", made.ports[0])) for _ in range(60)]
        wait_for(lambda: sum(not closed(each) for each in idle) <= 16, "idle connections to be closed")
        go_on.set()
        assert answer.result(timeout=PATIENCE) == b""
    assert at_server.get().get_sender_id() == 1
    for each in idle:
        each.close()


def test_what_waits_is_bounded_in_messages_and_bytes(network) -> None:
    made = network()
    server, at_server = made.start(0, model_bytes=100_000)
    with at_server.slow:
        made.post(pickle.dumps(online(1)), 1)
        wait_for(lambda: len(server._intake.inbox) == 0, "the server to be busy")
        for _ in range(30):
            made.post(pickle.dumps(online(1)), 1)
        for _ in range(3):
            made.post(b"x" * 1_000_000, 2)
        assert len(server._intake.inbox) == 16 + 1
    assert server.complaints.counts == {"queue": 30 - 16 + 2}


def test_a_flood_of_small_messages_is_cut_and_others_are_heard(network, caplog) -> None:
    made = network(server_args={"messages_per_second": 0.001})
    server, at_server = made.start(0)
    with caplog.at_level(logging.WARNING), made.channel() as channel:
        call = channel.unary_unary(METHOD)
        for _ in range(300):
            call(request(pickle.dumps(online(1)), 1), timeout=PATIENCE)
        made.post(pickle.dumps(online(2)), 2)
        while at_server.get().get_sender_id() != 2:
            pass
    assert server.complaints.counts["flood"] == 280
    assert sum("more than 0.001 messages a second" in line for line in caplog.messages) == 10


def test_the_log_holds_nothing_that_a_terminal_obeys(network, caplog) -> None:
    made = network()
    _, at_server = made.start(0)
    with caplog.at_level(logging.WARNING):
        made.post(pickle.dumps(online(1, client_status="\x1b[2J\nround 9: all is well" + "x" * 900_000)), 1)
        made.post(pickle.dumps(online(1)), 1)
        at_server.get()
    lines = [line for line in caplog.messages if "client_status" in line]
    assert len(lines) == 1
    assert len(lines[0]) <= 200
    assert lines[0].isprintable()


def test_connecting_and_leaving_does_nothing(network) -> None:
    made = network()
    _, at_server = made.start(0)
    for number in range(500):
        with socket.create_connection(("127.0.0.1", made.ports[0])) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[: number % 25])
    made.post(pickle.dumps(online(1)), 1)
    assert at_server.get().get_sender_id() == 1


@pytest.mark.parametrize(
    "content",
    [b"\xff" * 50, b"\x08", b"\x12\x00" * 3_000_000, request(b"", 1)[:-1] + b"\x12\xff\xff\xff\x7f"],
    ids=range(4),
)
def test_what_is_no_request_at_all_is_dropped(network, content) -> None:
    made = network()
    server, at_server = made.start(0)
    with made.channel() as channel:
        channel.unary_unary(METHOD)(content, timeout=PATIENCE)
    made.post(pickle.dumps(online(1)), 1)
    assert at_server.get().get_type() == ONLINE
    assert server.complaints.counts == {"request": 1}


def test_a_compressed_message_is_not_unpacked(network) -> None:
    made = network()
    server, at_server = made.start(0)
    with made.channel() as channel:
        call = channel.unary_unary(METHOD)
        call(request(bytes(10_000_000), 1), timeout=PATIENCE, compression=grpc.Compression.Gzip)
    made.post(pickle.dumps(online(1)), 1)
    assert at_server.get().get_type() == ONLINE
    assert server.complaints.counts == {"request": 1}
