"""Messages to clients that take them, that do not, and that never answer."""

import threading

from fedml_gradcam_ae.hooks.cross_silo.outbox import Outbox
from patience import PATIENCE


class Transport:
    """Client 1 never answers; client 2 cannot be reached."""

    def __init__(self):
        self.sent, self.failed = [], []
        self.arrived = threading.Semaphore(0)
        self.let_go = threading.Event()

    def send(self, message):
        receiver, text = message
        if receiver == 1:
            self.let_go.wait(PATIENCE)
        if receiver == 2:
            raise ConnectionError("refused")
        self.sent.append(text)
        self.arrived.release()

    def fail(self, *what):
        self.failed.append(what)
        self.arrived.release()

    def wait(self, count):
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE)


def test_messages_arrive_in_order_and_failures_are_told() -> None:
    transport = Transport()
    outbox = Outbox(transport.send, transport.fail)
    for number in range(50):
        assert outbox.put(3, (3, number), f"kind {number}") is None
    outbox.put(2, (2, "lost"), "model")
    transport.wait(51)
    assert transport.sent == list(range(50))
    assert transport.failed == [(2, (2, "lost"), "refused")]


def test_a_stuck_client_holds_up_nobody_and_little_waits_for_it() -> None:
    transport = Transport()
    outbox = Outbox(transport.send, transport.fail)
    before = threading.active_count()
    outbox.put(1, (1, "stuck"), "model")
    while outbox._waiting[1]:  # until the thread has taken it
        pass
    replaced = [outbox.put(1, (1, number), "model") for number in range(1000)]
    outbox.put(1, (1, "end"), "finish")
    assert replaced == [None, *((1, number) for number in range(999))]
    assert threading.active_count() <= before + 1
    outbox.put(3, (3, "hello"), "model")
    transport.wait(1)
    assert transport.sent == ["hello"]
    transport.let_go.set()
    transport.wait(3)
    assert transport.sent == ["hello", "stuck", 999, "end"]


def test_a_thread_ends_when_nothing_waits() -> None:
    transport = Transport()
    outbox = Outbox(transport.send, transport.fail)
    for receiver in range(3, 30):
        outbox.put(receiver, (receiver, receiver), "model")
    transport.wait(27)
    for thread in threading.enumerate():
        if thread.name.startswith("to client"):
            thread.join(PATIENCE)
    assert outbox._waiting == {}


def test_what_is_on_its_way_is_waited_for_but_not_for_ever() -> None:
    free, sent = threading.Event(), []

    def send(message):
        free.wait(60)
        sent.append(message)

    outbox = Outbox(send, lambda *_: None)
    outbox.drain(60)  # nothing is on its way
    outbox.put(1, "finish", "7")
    outbox.drain(0.01)
    assert sent == []
    free.set()
    outbox.drain(60)
    assert sent == ["finish"]
