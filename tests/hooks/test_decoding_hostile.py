"""Every hostile pickle is refused by its kind, alone, cut off, and inside of a message."""

from __future__ import annotations

import pytest

from fedml_gradcam_ae.hooks.cross_silo.decoding import Undecodable, decode_message, decode_value
from hostile_pickles import FRAMING, HOSTILE, MESSAGES, VALUES, Case
from pickled import message, text
from plain_values import attempt, check_refusal


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name.replace(" ", "-") for case in cases])


def refused(decode, case: Case) -> None:
    with pytest.raises(Undecodable) as found:
        decode(case.content, case.budget)
    assert found.value.kind == case.kind, found.value
    assert case.words in str(found.value)
    check_refusal(found.value)


@named(VALUES)
def test_hostile_values_are_refused_by_their_kind(case) -> None:
    refused(decode_value, case)


@named(MESSAGES)
def test_hostile_messages_are_refused_by_their_kind(case) -> None:
    refused(decode_message, case)


@named(VALUES)
def test_no_hostile_value_is_a_message(case) -> None:
    with pytest.raises(Undecodable):
        decode_message(case.content, case.budget)


INSIDE = [case for case in VALUES if case not in FRAMING and case.kind not in ("broken", "too slow")]


@named([case for case in INSIDE if len(case.content) < 10_000])
def test_hostile_values_are_refused_inside_of_a_message(case) -> None:
    inner = case.content[2:-1]  # without PROTO and STOP
    if inner[:1] == b"\x95":
        inner = inner[9:]
    with pytest.raises(Undecodable) as found:
        decode_message(message(text("model_params") + inner), case.budget)
    assert found.value.kind == case.kind


@named([case for case in HOSTILE if len(case.content) < 3000])
def test_every_beginning_of_a_hostile_pickle_is_handled(case) -> None:
    for end in range(0, len(case.content), 1 + len(case.content) // 200):
        attempt(case.content[:end], case.budget)
