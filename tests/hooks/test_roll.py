"""The server's decisions about who is asked, who has answered and what counts: every transition, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedml_gradcam_ae.hooks.cross_silo.roll import FREE_REPEATS, PAUSE_SECONDS, Do, Phase, Roll


def waiting(members=(1, 2, 3), minimum=1) -> Roll:
    roll = Roll(members, minimum)
    roll.choose(1, list(members))
    return roll


def running(members=(1, 2, 3), minimum=1, process=None) -> Roll:
    """Round 1, all clients online and asked."""
    roll = waiting(members, minimum)
    for member in members:
        roll.online(member, process, 0.0)
    roll.start()
    ask(roll)
    return roll


def ask(roll, now=0.0) -> None:
    for client in roll.to_ask():
        roll.asked(client, now)


def next_round(roll, chosen=None) -> None:
    roll.choose(roll.number + 1, chosen or roll.chosen)
    ask(roll)


@pytest.mark.parametrize("sender", [4, 0, -1, True, 1.0, "1", None, [1], {}, float("nan"), object()])
def test_only_a_member_is_a_client(sender) -> None:
    assert waiting().member(sender) is None
    assert waiting().member(10**5000) is None
    assert waiting().member(1) == 1


def test_the_first_round_starts_once_all_its_clients_are_there() -> None:
    roll = waiting()
    roll.choose(1, [1, 3])
    assert roll.online(1, None, 0) is Do.NOTHING
    assert roll.online(1, None, 0) is Do.NOTHING
    assert roll.online(2, None, 0) is Do.NOTHING  # not in the round
    assert roll.online(3, None, 0) is Do.START


def test_nothing_starts_before_the_server_has_chosen() -> None:
    assert Roll([1], 1).online(1, None, 0) is Do.NOTHING


def test_a_round_ends_with_the_last_upload() -> None:
    roll = running()
    for client in (2, 1):
        assert roll.upload(client, None, "model") is None
        assert roll.settle() is Do.NOTHING
    assert roll.missing() == [3]
    assert roll.upload(3, None, "model") is None
    assert roll.settle() is Do.AGGREGATE
    assert roll.here() == [1, 2, 3]


def test_uploads_that_do_not_count() -> None:
    roll = waiting()
    assert roll.upload(1, None, "early") == "no round is running"
    roll = running()
    assert roll.upload(None, None, "stranger") == "the client is not in the federation"
    assert roll.upload(1, None, "first") is None
    for number in (None, 1, 2, 0, -1, 10**5000):
        assert roll.upload(1, number, "again") == "it was not asked for, or has come before"
    for number in ("1", 1.0, True, [1], b"1"):
        assert "must be a whole number, found" in roll.upload(2, number, "strange")
    assert roll.uploads == {1: "first"}
    assert roll.upload(2, 1, "right") is None
    roll.end()
    assert roll.upload(3, None, "late") == "no round is running"


def test_late_uploads_are_told_apart_by_counting() -> None:
    roll = running()
    next_round(roll)
    next_round(roll, [1, 2])
    assert roll.upload(1, None, "a") == "it is for an earlier round, 1"
    assert roll.upload(3, None, "a") == "it is for an earlier round, 1"
    assert roll.upload(1, None, "b") == "it is for an earlier round, 2"
    next_round(roll, [1, 2, 3])
    assert roll.upload(3, None, "b") == "it is for an earlier round, 2"  # the client was not in round 3
    assert roll.upload(3, None, "d") is None
    assert roll.upload(1, None, "c") == "it is for an earlier round, 3"
    assert roll.upload(1, None, "d") is None


def test_late_uploads_are_told_apart_by_their_number() -> None:
    roll = running()
    next_round(roll)
    assert roll.upload(1, 2, "for 2, and the one for 1 is lost") is None
    assert roll.upload(1, 1, "after all") == "it was not asked for, or has come before"
    assert roll.upload(2, 1, "late") == "it is for an earlier round, 1"
    assert roll.upload(2, 2, "right") is None
    assert roll.upload(3, 3, "from the future") == "it was not asked for, or has come before"


def test_what_did_not_get_to_a_client_is_not_expected_from_it() -> None:
    roll = running()
    assert roll.undelivered(1, 1) is Do.NOTHING
    assert roll.upload(1, None, "of what?") == "it was not asked for, or has come before"
    assert roll.clients[1].received == 0
    next_round(roll)
    assert roll.upload(1, None, "for 2") is None
    roll.undelivered(1, 1)  # said a second time
    assert roll.clients[1].received == 1


def test_a_client_that_reports_at_its_start_and_in_answer_to_a_call_is_asked_once() -> None:
    roll = waiting(members=(1,))
    roll.called(1, echoes=True)
    assert roll.online(1, None, 0) is Do.START
    roll.start()
    ask(roll)
    assert roll.online(1, None, PAUSE_SECONDS - 0.1) is Do.NOTHING
    assert roll.online(1, None, PAUSE_SECONDS) is Do.ASK  # a real start takes longer than the pause


def test_news_of_an_old_message_does_not_hide_that_the_client_has_come() -> None:
    roll = waiting(members=(1, 2))
    roll.called(1)
    roll.online(1, None, 0)
    assert roll.undelivered(1, None) is Do.NOTHING  # the call, before the client started
    assert roll.online(2, None, 0) is Do.START
    roll.start()
    ask(roll)
    assert roll.online(1, None, 1) is Do.ASK
    roll.withdrawn(1, 1)
    roll.undelivered(1, 1)
    assert roll.clients[1].online


def test_what_was_overtaken_by_a_newer_model_is_not_expected() -> None:
    roll = running()
    next_round(roll)
    roll.withdrawn(1, 1)
    assert roll.clients[1].online
    assert roll.upload(1, None, "for 2") is None


def test_a_client_that_is_restarted_is_asked_again_and_owes_nothing() -> None:
    roll = running()
    next_round(roll)
    assert roll.was_restarted(1, None)
    assert roll.online(1, None, 9) is Do.ASK
    assert roll.clients[1].received == 0
    roll.asked(1, 9)
    assert roll.upload(1, None, "for 2") is None
    assert roll.online(1, None, 10) is Do.NOTHING  # its upload is here
    next_round(roll, [2, 3])
    assert roll.online(1, None, 11) is Do.NOTHING  # not in the round


def test_the_same_process_is_not_asked_twice() -> None:
    roll = running(process="a")
    assert not roll.was_restarted(1, "a")
    assert roll.online(1, "a", 1) is Do.NOTHING
    assert roll.clients[1].owed == [1]
    assert roll.was_restarted(1, "b")
    assert roll.online(1, "b", 1) is Do.ASK
    roll.asked(1, 1)
    roll.undelivered(1, 1)
    assert roll.online(1, "b", 2) is Do.ASK  # the same, but it got nothing


def test_a_plain_client_that_was_called_may_be_the_one_of_before() -> None:
    roll = waiting()
    roll.called(1)
    assert not roll.was_restarted(1, None)
    roll.online(1, None, 0)
    assert not roll.was_restarted(1, None)


def test_a_flood_of_greetings_costs_few_models() -> None:
    roll = running()
    asked = 0
    for step in range(2000):
        if roll.online(1, None, step / 1000) is Do.ASK:
            roll.asked(1, step / 1000)
            asked += 1
    assert asked == FREE_REPEATS - 1
    assert roll.clients[1].owed == [1]
    assert roll.online(1, None, 1.999 + PAUSE_SECONDS) is Do.ASK  # a real start takes longer than the pause


def test_a_client_that_is_called_answers_before_it_is_asked() -> None:
    roll = waiting()
    for client in (1, 2, 3):
        roll.called(client)
    assert roll.online(1, None, 0) is Do.NOTHING
    assert roll.undelivered(2, None) is Do.NOTHING  # the call did not get there
    assert roll.time_is_over() is Do.START
    roll.start()
    assert roll.to_ask() == [1, 2]
    ask(roll)
    assert roll.upload(3, None, "for the server before this one") == "it was not asked for, or has come before"
    assert roll.online(3, None, 5) is Do.ASK


def test_clients_that_end_are_not_waited_for_if_enough_are_left() -> None:
    roll = running(minimum=2)
    roll.upload(1, None, "model")
    assert roll.finished(2) is Do.NOTHING
    assert roll.can_be_enough()
    assert roll.finished(3) is Do.NOTHING  # one upload, and two are needed
    assert not roll.can_be_enough()
    assert roll.finished(3) is Do.NOTHING
    assert roll.online(3, None, 1) is Do.ASK
    roll.asked(3, 1)
    assert roll.upload(3, None, "model") is None
    assert roll.settle() is Do.AGGREGATE


def test_the_last_answer_of_a_round_may_be_an_end() -> None:
    roll = running()
    roll.upload(1, None, "model")
    roll.upload(2, None, "model")
    assert roll.finished(3) is Do.AGGREGATE


def test_uploads_are_used_before_all_have_ended() -> None:
    roll = running(members=(1, 2))
    roll.upload(1, None, "model")
    roll.finished(1)
    assert roll.finished(2) is Do.AGGREGATE
    next_round(roll)
    assert roll.to_ask() == []
    assert roll.settle() is Do.STOP


def test_when_all_have_ended_the_server_stops() -> None:
    roll = running(members=(1, 2), minimum=2)
    assert roll.finished(1) is Do.NOTHING
    assert roll.finished(1) is Do.NOTHING
    assert roll.finished(2) is Do.STOP


def test_only_a_client_that_was_there_can_end() -> None:
    roll = waiting()
    assert not roll.may_finish(1)
    roll.called(1)
    assert roll.may_finish(1)
    roll.called(2)
    roll.online(2, None, 0)
    roll.called(2)
    roll.undelivered(2, None)
    assert not roll.clients[2].online
    assert roll.may_finish(2)
    roll.end()
    assert roll.may_finish(3)


def test_when_the_time_is_over() -> None:
    roll = waiting(minimum=2)
    roll.online(1, None, 0)
    assert roll.time_is_over() is Do.NOTHING
    roll.online(3, None, 0)
    assert roll.missing() == [2]
    assert roll.time_is_over() is Do.START
    roll.start()
    ask(roll)
    roll.upload(1, None, "model")
    assert roll.time_is_over() is Do.NOTHING
    roll.upload(3, None, "model")
    assert roll.time_is_over() is Do.AGGREGATE
    roll.end()
    assert roll.time_is_over() is Do.STOP


def test_the_end_is_when_all_clients_have_said_so() -> None:
    roll = running(members=(1, 2, 3, 4))
    roll.choose(2, [1, 2])
    roll.finished(4)
    roll.end()
    assert roll.to_dismiss() == [1, 2, 3]  # the third waits for a model that it would never get
    assert roll.finished(1) is Do.NOTHING
    assert roll.undelivered(2, None) is Do.NOTHING
    assert roll.online(1, None, 9) is Do.DISMISS  # started again
    assert roll.finished(3) is Do.NOTHING
    assert roll.finished(1) is Do.STOP


events = st.tuples(
    st.sampled_from(["online", "finished", "upload", "undelivered", "called", "time"]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([None, 0, 1, 2, 3, "x"]),
)


@given(st.lists(events, max_size=60), st.integers(1, 3))
def test_whatever_clients_say_nothing_breaks_and_no_round_ends_with_too_few(said, minimum) -> None:
    roll, clock = waiting(minimum=minimum), 0.0
    for event, client, number in said:
        clock += 0.5
        do = Do.NOTHING
        if event == "online":
            do = roll.online(client, number if number == "x" else None, clock)
        elif event == "finished" and roll.may_finish(client):
            do = roll.finished(client)
        elif event == "upload" and roll.upload(client, number, "model") is None:
            do = roll.settle()
        elif event == "undelivered":
            do = roll.undelivered(client, number)
        elif event == "called" and roll.phase is Phase.WAITING:
            roll.called(client)
        elif event == "time":
            do = roll.time_is_over()
        if do is Do.START:
            assert roll.phase is Phase.WAITING
            roll.start()
            ask(roll, clock)
        elif do is Do.ASK:
            assert client in roll.chosen
            assert client not in roll.uploads
            roll.asked(client, clock)
        elif do is Do.AGGREGATE:
            assert roll.phase is Phase.RUNNING
            assert len(roll.uploads) >= minimum
            if roll.number == 3:
                roll.end()
            else:
                next_round(roll)
        elif do is Do.STOP:
            break
        assert all(known.received >= 0 and len(known.owed) <= known.received for known in roll.clients.values())
