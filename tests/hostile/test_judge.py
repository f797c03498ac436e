"""Every hostile upload and claim against every rule, as the server calls them: `screen`, then `judge`."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fedml_gradcam_ae import Round, Verdict
from fedml_gradcam_ae.contract.screening import screen
from fedml_gradcam_ae.hooks.defender import hand_back
from hostile import rules
from hostile.cases import Case, cases
from hostile.network import CLAIM, MINE, State, average, honest, network, offsets, state
from judging import check_verdict
from tiny import digits

HOSTILE = 3  # its position among the clients
UNUSABLE = [case for case in cases("upload", "claim") if case.outcomes == ("left out",)]
# The gate is the same for all rules: one rule meets every case, and each other one some, by diagonals, so that
# every case meets some rules of each kind.
ALL = [
    pytest.param(name, case, id=f"{name}-{case.name}", marks=() if name == rules.STRICT else pytest.mark.long)
    for row, name in enumerate(rules.NAMES)
    for column, case in enumerate(cases("upload", "claim"))
    if name == rules.STRICT or (row + column) % 24 == 0
]
# One after the other takes a rule up to half a minute, so that CI takes a third of them; the others run by hand.
EACH = [
    pytest.param(name, marks=() if name in rules.QUICK else pytest.mark.soak if row % 3 else pytest.mark.long)
    for row, name in enumerate(rules.NAMES)
]


images_and_labels = functools.cache(digits)


def round_with(upload: Any, samples: Any = CLAIM, number: int = 1) -> Round:
    """Five honest clients, and the hostile one among them."""
    images, labels = images_and_labels()
    uploads: list[Any] = [honest(offset) for offset in offsets(number)]
    claims: list[Any] = [CLAIM] * len(uploads)
    return Round(
        number=number,
        client_ids=["a", "b", "c", "hostile", "d", "e"],
        uploads=[*uploads[:HOSTILE], upload, *uploads[HOSTILE:]],
        samples=[*claims[:HOSTILE], samples, *claims[HOSTILE:]],
        global_model=state(),
        network=network(),
        test_data=DataLoader(TensorDataset(images[:64], labels[:64]), batch_size=16),
    )


def round_of(case: Case, number: int = 1) -> Round:
    if case.group == "claim":
        return round_with(honest(MINE), case.build(), number)
    return round_with(case.build(honest(MINE)), number=number)


def without(reason: str, number: int = 1) -> Round:
    """The same round without the hostile client, whose upload the server has refused already."""
    round = round_with(None, number=number)
    return replace(round.only([i for i in range(6) if i != HOSTILE]), rejected={"hostile": reason})


def aggregate(defense: Any, round: Round) -> State:
    """The new global model, as FedML makes it of what the hooks hand back; the verdict is checked on the way."""
    screened = screen(round)
    verdict = defense.judge(screened)
    check_verdict(with_all_lists(verdict, len(screened.uploads)), screened)
    return average(hand_back(verdict, screened))


def with_all_lists(verdict: Verdict, clients: int) -> Verdict:
    """For rules that tell no clients apart: lists that say nothing, where `check_verdict` needs some."""
    none = [False] * clients
    excluded = none if verdict.weights is None else [weight == 0 for weight in verdict.weights]
    return replace(
        verdict,
        flagged=none if verdict.flagged is None else verdict.flagged,
        excluded=excluded if verdict.excluded is None else verdict.excluded,
        scores=[0.0] * clients if verdict.scores is None else verdict.scores,
        threshold=None if verdict.flagged is None else verdict.threshold,
    )


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: State, other: State, names: list[str]) -> float:
    return float(sum((one[name].double() - other[name].double()).square().sum() for name in names)) ** 0.5


@pytest.mark.parametrize(("rule", "case"), ALL)
def test_a_hostile_client_changes_nothing(rule: str, case: Case) -> None:
    round = round_of(case)
    screened = screen(round)
    reason = screened.rejected.get("hostile")
    found = aggregate(rules.build(rule), round)
    if reason is not None:
        assert "left out" in case.outcomes, reason
        assert re.search(case.report or "", reason), reason
        assert same(found, aggregate(rules.build(rule), without(reason)))
    elif case.may_be_taken:
        claim = CLAIM if case.stands_for is None else case.stands_for
        allowed = aggregate(rules.build(rule), round_with(honest(MINE), claim))
        for name, tensor in allowed.items():
            assert torch.allclose(found[name].double(), tensor.double(), rtol=1e-5, atol=1e-7), name
    else:
        assert "bounded" in case.outcomes, "the upload was taken"
        clean = aggregate(rules.build(rule), without("bounded"))
        names = [name for name, tensor in clean.items() if tensor.is_floating_point()]
        longest = max(distance(model, state(), names) for model in (clean, *map(honest, offsets(1))))
        assert all(tensor.isfinite().all() for tensor in found.values())
        # A kept upload may count for a sixth, and be a few times as long as usual.
        assert distance(found, clean, names) <= 2 * longest


@pytest.mark.parametrize("case", cases("upload", "claim"), ids=lambda case: case.name)
def test_the_screen_says_in_a_line_what_is_wrong_and_touches_nothing_else(case: Case) -> None:
    round = round_of(case)
    screened = screen(round)
    assert same(round.global_model, state())
    for position, offset in zip((0, 1, 2, 4, 5), offsets(1), strict=True):
        assert same(round.uploads[position], honest(offset))
    reason = screened.rejected.get("hostile")
    assert list(screened.rejected) in ([], ["hostile"])
    assert reason is not None or case.outcomes != ("left out",)
    if reason is not None:
        assert re.search(case.report or "", reason), reason
        assert len(reason) <= 500
        assert reason.isprintable()


@pytest.mark.parametrize("rule", EACH)
def test_a_rule_that_meets_one_after_the_other_is_as_one_that_meets_none(rule: str) -> None:
    """What a rule remembers of earlier rounds included."""
    met, spared = rules.build(rule), rules.build(rule)
    for number, case in enumerate(UNUSABLE, 1):
        found = aggregate(met, round_of(case, number))
        assert same(found, aggregate(spared, without("refused", number))), case.name


@pytest.mark.parametrize("borrowed", ["another client's tensors", "the global model's tensors"])
@pytest.mark.parametrize("rule", rules.NAMES)
def test_tensors_in_foreign_memory_are_as_copies_of_them(rule: str, borrowed: str) -> None:
    """In a simulation an upload may lie in the memory of another; no rule may write into it."""
    round = round_with(None)
    lender = round.uploads[0] if borrowed.startswith("another") else round.global_model
    copies = {name: tensor.clone() for name, tensor in lender.items()}

    def lending(upload: Any) -> Round:
        return replace(round, uploads=[*round.uploads[:HOSTILE], upload, *round.uploads[HOSTILE + 1 :]])

    found = aggregate(rules.build(rule), lending(lender))
    assert same(lender, copies)
    assert same(found, aggregate(rules.build(rule), lending(copies)))
