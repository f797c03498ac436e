"""Senders take turns by the time that their messages have taken."""

from __future__ import annotations

from fedml_gradcam_ae.hooks.cross_silo.transport.inbox import HALF_LIFE, Arrival, Inbox


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waiting(*senders: int, clock: Clock) -> Inbox:
    """An inbox in which three messages of every sender wait."""
    inbox = Inbox(clock=clock)
    for sender in senders:
        for _ in range(3):
            assert inbox.put(Arrival(sender, b"x"), 100)
    return inbox


def taken(inbox: Inbox, count: int, cost: dict[int, float]) -> list[int]:
    """The senders of the next messages, where those of each sender take `cost` seconds."""
    order = []
    for _ in range(count):
        sender = inbox.get(0).sender
        inbox.spent(sender, cost[sender])
        order.append(sender)
    return order


def test_a_sender_whose_messages_cost_much_waits_behind_one_whose_messages_cost_little() -> None:
    inbox = waiting(1, 2, clock=Clock())
    assert taken(inbox, 6, {1: 10.0, 2: 0.1}) == [1, 2, 2, 2, 1, 1]


def test_equal_senders_alternate() -> None:
    inbox = waiting(1, 2, clock=Clock())
    assert taken(inbox, 6, {1: 0.5, 2: 0.5}) == [1, 2, 1, 2, 1, 2]


def test_what_a_sender_has_spent_fades() -> None:
    clock = Clock()
    inbox = waiting(1, 2, clock=clock)
    inbox.spent(1, 8.0)
    clock.now += 3 * HALF_LIFE  # 8 seconds have become 1
    assert taken(inbox, 3, {1: 0.0, 2: 0.6}) == [2, 2, 1]


def test_a_costly_sender_is_served_when_no_other_waits() -> None:
    inbox = Inbox(clock=Clock())
    inbox.spent(1, 1000.0)
    assert inbox.put(Arrival(1, b"x"), 100)
    assert inbox.get(0) == Arrival(1, b"x")
