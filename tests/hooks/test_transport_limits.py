"""The transport's rules, without a network: which calls go, what is reported, what a message may say."""

import logging
import resource
import socket

import numpy
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'fedml-gradcam-ae[grpc]'")

from fedml_gradcam_ae.contract.shown import printable, shown
from fedml_gradcam_ae.hooks.cross_silo.complaints import Complaints
from fedml_gradcam_ae.hooks.cross_silo.decoding import Envelope
from fedml_gradcam_ae.hooks.cross_silo.refused import Refused
from fedml_gradcam_ae.hooks.cross_silo.transport import progress
from fedml_gradcam_ae.hooks.cross_silo.transport.addresses import is_host
from fedml_gradcam_ae.hooks.cross_silo.transport.envelope import UPLOAD, Misfit, check
from fedml_gradcam_ae.hooks.cross_silo.transport.inbox import Arrival, Inbox
from fedml_gradcam_ae.hooks.cross_silo.transport.limits import Limits, of_a_model, raise_open_files
from fedml_gradcam_ae.hooks.cross_silo.transport.request import read_request
from fedml_gradcam_ae.hooks.cross_silo.transport.unfinished import Call, Unfinished

MB = 1_000_000


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


# --- calls on their way ---


def place(number):
    return ("192.0.2.1", number)


def test_an_honest_upload_outlives_stalled_calls() -> None:
    calls = Unfinished(receive_timeout=600, bytes=10**9, places=10)
    honest = Call(place(1), None, since=0.0)
    calls.enter(honest)
    gone = []
    for number in range(2, 50):
        gone += calls.sweep(number * 0.1, {place(1): number * MB})
        gone += calls.enter(Call(place(number), None, since=number * 0.1))
    assert len(calls) == 10
    assert honest not in [call for call, _ in gone]


def test_a_call_that_came_just_now_outlives_stalled_ones() -> None:
    calls = Unfinished(receive_timeout=600, bytes=10**9, places=3)
    for number in (1, 2, 3):
        calls.enter(Call(place(number), None, since=float(number)))
    newest = Call(place(4), None, since=4.0)
    assert [(call.connection, reason) for call, reason in calls.enter(newest)] == [(place(1), "too many calls at once")]


def trickling(calls, numbers, sweeps=3):
    """Let calls begin that bring 50 bytes between two sweeps."""
    begun = [Call(place(number), None, since=0.0) for number in numbers]
    for call in begun:
        calls.enter(call)
    for sweep in range(1, sweeps + 1):
        assert calls.sweep(sweep * 0.5, {call.connection: 50 * sweep for call in begun}) == []
    return begun


def test_a_new_call_outlives_calls_that_trickle() -> None:
    calls = Unfinished(receive_timeout=600, bytes=10**9, places=3)
    slow = trickling(calls, (1, 2, 3))
    newest = Call(place(4), None, since=1.6)
    assert [call for call, _ in calls.enter(newest)] == slow[:1]


def test_a_sweep_that_follows_at_once_does_not_judge_a_new_call() -> None:
    calls = Unfinished(receive_timeout=600, bytes=10**9, places=4)
    slow = trickling(calls, (1, 2, 3))
    newest = Call(place(4), None, since=1.999)
    assert calls.enter(newest) == []
    assert calls.sweep(2.0, {**{call.connection: 200 for call in slow}, place(4): 0}) == []
    assert [call for call, _ in calls.enter(Call(place(5), None, since=2.1))] == slow[:1]


def test_a_flood_of_new_calls_leaves_those_that_bring_the_most() -> None:
    calls = Unfinished(receive_timeout=600, bytes=10**9, places=10)
    honest = trickling(calls, range(5))
    flood = [Call(place(number), None, since=2.0 + number / 1000) for number in range(5, 105)]
    gone = [call for each in flood for call, _ in calls.enter(each)]
    assert gone == flood[:95]
    assert len(calls) == 10
    assert not set(honest) & set(gone)


def test_calls_that_hold_too_many_bytes_go_the_stalled_ones_first() -> None:
    calls = Unfinished(receive_timeout=600, bytes=250 * MB, places=10)
    stalled, moving, small = (Call(place(number), None, since=0.0) for number in (1, 2, 3))
    for call in (stalled, moving, small):
        calls.enter(call)
    assert calls.sweep(0.5, {place(1): 150 * MB, place(2): 50 * MB, place(3): 1000}) == []
    out = calls.sweep(1.0, {place(1): 150 * MB, place(2): 120 * MB, place(3): 2000})
    assert out == [(stalled, "too many bytes in unfinished calls")]


def test_bytes_of_messages_that_were_read_are_not_counted_again() -> None:
    calls = Unfinished(receive_timeout=600, bytes=100 * MB, places=10)
    first = Call(place(1), None, since=0.0)
    calls.enter(first)
    calls.leave(first, size=90 * MB)
    second = Call(place(1), None, since=1.0)
    calls.enter(second)
    assert calls.sweep(1.5, {place(1): 120 * MB}) == []
    assert second.bytes == 30 * MB


@pytest.mark.parametrize(("seconds", "received", "gone"), [(9, 0, 0), (11, 9_000, 1), (11, 12_000, 0), (601, MB, 1)])
def test_slow_calls_end(seconds, received, gone) -> None:
    calls = Unfinished(receive_timeout=600, bytes=MB, places=10)
    calls.enter(Call(place(1), None, since=0.0))
    assert len(calls.sweep(float(seconds), {place(1): received})) == gone


def test_where_the_kernel_tells_nothing_only_the_time_limit_counts() -> None:
    calls = Unfinished(receive_timeout=600, bytes=0, places=10)
    calls.enter(Call(place(1), None, since=0.0))
    assert calls.sweep(599.0, {}) == []
    assert len(calls.sweep(601.0, {})) == 1


def test_identities_are_in_their_own_way_only() -> None:
    calls = Unfinished(receive_timeout=600, bytes=MB, places=100)
    others = [Call(place(rank), rank, since=0.0) for rank in (1, 2)]
    for call in others:
        assert calls.enter(call) == []
    mine = [Call(place(10 + number), 3, since=1.0 + number) for number in range(4)]
    gone = [call for each in mine for call, _ in calls.enter(each)]
    assert gone == mine[:2]


@pytest.mark.skipif(not progress.SUPPORTED, reason="Linux tells how many bytes a connection brought")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_counts_bytes(family, host) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection((host, port)) as sender, listening.accept()[0] as receiver:
            sender.sendall(b"x" * 12_345)
            while len(receiver.recv(12_345, socket.MSG_PEEK)) < 12_345:
                pass
            assert progress.received(port) == {(host, sender.getsockname()[1]): 12_345}


# --- what is reported ---


def test_ten_lines_a_minute_a_kind_and_then_their_number(caplog) -> None:
    clock = Clock()
    complaints = Complaints(clock=clock)
    with caplog.at_level(logging.WARNING):
        for number in range(322):
            complaints.report("flood", f"message {number}")
        complaints.report("size", "another kind")
        assert caplog.messages == [*(f"message {number}" for number in range(10)), "another kind"]
        clock.now = 59.0
        complaints.flush()
        assert len(caplog.messages) == 11
        clock.now = 61.0
        complaints.report("flood", "a minute later")
    assert caplog.messages[11:] == ["... and 312 more of this kind (flood)", "a minute later"]
    assert complaints.counts == {"flood": 323, "size": 1}


def test_what_was_held_back_is_said_at_the_end(caplog) -> None:
    complaints = Complaints(lines=1, clock=Clock())
    with caplog.at_level(logging.WARNING):
        complaints.report("flood", "one")
        complaints.report("flood", "two")
        complaints.flush(everything=True)
    assert caplog.messages == ["one", "... and 1 more of this kind (flood)"]


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\r\nb", "\u202eevil", "\u2028", "\ud800", "\x00", "\x9b31m"])
def test_nothing_invisible_is_printed(text) -> None:
    assert printable(text).isprintable()
    assert printable(text) != ""


def test_a_long_text_is_cut_also_when_all_of_it_is_escaped() -> None:
    assert len(printable("x" * 900_000)) == len(printable("\x1b" * 900_000)) == 200


VALUES = [10**5000, -(10**400), "x" * 10**6, [[]] * 10**5, {"a": 1}, 1e308, None, b"\x1b"]
SENDERS = [-1, 10**6 + 1, "12345678", "-1", "1.0", "\u0661", "", 1.0, True, None, b"1", [1], {}, 10**5000]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_any_value_is_described_in_a_few_words(value) -> None:
    assert 0 < len(shown(value)) < 80
    assert shown(value).isprintable()


# --- requests ---


@pytest.mark.parametrize("client_id", [0, 1, 127, 128, 10**6, 2**31 - 1])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_requests_are_read_as_protobuf_reads_them(client_id, size) -> None:
    from fedml.core.distributed.communication.grpc import grpc_comm_manager_pb2

    message = bytes(range(256)) * (size // 256 + 1)
    written = grpc_comm_manager_pb2.CommRequest(client_id=client_id, message=message[:size]).SerializeToString()
    assert read_request(written) == (client_id, message[:size])


def test_the_order_of_the_fields_is_free() -> None:
    assert read_request(b"\x12\x02hi\x08\x03") == (3, b"hi")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x12\x00" * 3_000_000, "found one twice"),
        (b"\x08\x00" * 2, "found one twice"),
        (b"\x08\x01\x12\x00\x08\x01", "found one twice"),
        (b"\x1a\x00", "byte 26"),
        (b"\x10\x00", "byte 16"),
        (b"\x0a\x00", "byte 10"),
        (b"\x88\x00\x01", "byte 136"),
        (b"\x08", "found another or none"),
        (b"\x08\x80", "found another or none"),
        (b"\x08" + b"\x80" * 1_000_000, "found another or none"),
        (b"\x08" + b"\xff" * 9 + b"\x01", "found another or none"),  # -1
        (b"\x08\x80\x80\x80\x80\x08", "found another or none"),  # 2**31
        (b"\x12\x03hi", "expected 3 bytes of message, found 2"),
        (b"\x12\xff\xff\xff\xff\x07", "bytes of message, found 0"),
    ],
    ids=range(14),
)
def test_what_is_no_request_is_an_error(content, words) -> None:
    with pytest.raises(ValueError, match=words):
        read_request(content)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fe80::1%br-1.2_3", True),
        ("fe80::1%", False),
        ("fe80::1%]:1/x", False),
        ("fe80::1%eth0\n", False),
        ("fe80::1%a%b", False),
        ("fe80::1%\u0661", False),
        ("silo%eth0", False),
        ("192.0.2.7%eth0", False),
    ],
)
def test_which_texts_are_hosts(text, host) -> None:
    assert is_host(text) is host


# --- what waits ---


def test_senders_take_turns_and_each_is_heard_in_order() -> None:
    inbox = Inbox(messages=3)
    for content in (b"a", b"b", b"c"):
        assert inbox.put(Arrival(1, content), 100)
    assert not inbox.put(Arrival(1, b"d"), 100)
    assert inbox.put(Arrival(2, b"e"), 100)
    assert [inbox.get(0).content for _ in range(4)] == [b"a", b"e", b"b", b"c"]
    assert inbox.get(0) is None


def test_one_message_may_always_wait_and_refused_ones_weigh_nothing() -> None:
    inbox = Inbox()
    assert inbox.put(Arrival(1, b"x" * 200), 100)
    assert not inbox.put(Arrival(1, b"x"), 100)
    assert inbox.put(Arrival(2, Refused("too large")), 100)
    assert inbox.put(Arrival(2, b"x" * 100), 100)
    assert len(inbox) == 3


# --- limits ---


def test_limits_follow_from_the_model() -> None:
    assert Limits().message == MB
    limits = of_a_model(45 * MB, 4.0, 10)
    assert limits.message == limits.tellable == 181 * MB
    assert limits.on_their_way >= 10 * limits.message
    assert of_a_model(1000, 4.0, 2).tellable == 64 * MB


def test_the_limit_of_open_files_is_raised_and_leaves_room() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        connections = raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert hard == resource.RLIM_INFINITY or 0 < connections < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the schema ---


def envelope(kind=UPLOAD, sender=1, receiver=0, **parameters):
    return Envelope(kind, sender, receiver, parameters)


def test_plain_extras_pass_and_others_do_not() -> None:
    extras = {"round": 3, "note": "x", "loss": 0.5, "nested": [1], "huge": 10**30, "long": "x" * 256, 7: 1, "k" * 65: 1}
    found = Envelope(UPLOAD, 1, 0, {"num_samples": 2, "model_params": "m", "msg_type": 9, "sender": 5, **extras})
    _, parameters = check(found, {UPLOAD}, {0})
    assert parameters == {"num_samples": 2, "model_params": "m", "round": 3, "note": "x", "loss": 0.5}


def test_only_so_many_extras_pass() -> None:
    _, parameters = check(envelope(num_samples=1, **{f"k{n}": n for n in range(1000)}), {UPLOAD}, {0})
    assert len(parameters) == 32 + 2


@pytest.mark.parametrize("claim", [3, -3, 2.5, float("nan"), numpy.int64(3), numpy.float32(0.5), 2**63])
def test_plain_claims_pass_whatever_their_value(claim) -> None:
    _, parameters = check(envelope(num_samples=claim, model_params={}), {UPLOAD}, {0})
    assert parameters["model_params"] == {}
    assert type(parameters["num_samples"]) in (int, float)


def test_an_upload_without_a_model_or_a_claim_is_refused() -> None:
    for parameters in ({"num_samples": 3}, {"model_params": {}}):
        assert isinstance(check(envelope(**parameters), {UPLOAD}, {0})[1]["model_params"], Refused)


@pytest.mark.parametrize(
    "sender", [-1, 10**6 + 1, "12345678", "-1", "1.0", "\u0661", "", 1.0, True, None, b"1", [1], {}]
)
def test_senders_that_are_no_ids(sender) -> None:
    with pytest.raises(Misfit, match=r"^sender: expected ") as misfit:
        check(envelope(sender=sender), {UPLOAD}, {0})
    assert misfit.value.kind == "sender"
    assert len(str(misfit.value)) <= 200
