"""The budget's objects bound the work of decoding, counted in calls and not in seconds."""

from __future__ import annotations

import pickle

import pytest
import torch

from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Undecodable, decode_value
from fedml_gradcam_ae.hooks.cross_silo.decoding.budget import COSTLY, INSTRUCTIONS_PER_OBJECT, Ledger
from pickled import floats, name, number, numbers, pickled

MANY = 40_000
BUDGET = Budget(10**9, 20_000)
ALLOWED = INSTRUCTIONS_PER_OBJECT * BUDGET.objects


@pytest.fixture
def costly(monkeypatch) -> list[int]:
    """What each costly step was charged, in instructions."""
    steps: list[int] = []
    enter = Ledger.costly

    def counted(ledger: Ledger, instructions: int = COSTLY) -> None:
        enter(ledger, instructions)
        steps.append(instructions)

    monkeypatch.setattr(Ledger, "costly", counted)
    return steps


def repeated(module: str, function: str, arguments: bytes, times: int = MANY) -> bytes:
    """A list of one call, made again and again with the same memoized arguments."""
    return pickled(b"(", name(module, function), b"q\x00", arguments, b"q\x01", b"h\x00h\x01R" * times, b"t")


def tensors(size: tuple[int, ...], stride: tuple[int, ...], times: int = MANY) -> bytes:
    arguments = b"(" + floats(4) + number(0) + numbers(*size) + numbers(*stride) + b"\x89}t"
    return repeated("torch._utils", "_rebuild_tensor_v2", arguments, times)


def integers(*keys: int, again: int) -> bytes:
    """A dictionary with `keys`, the first of which is set again and again."""
    entries = b"".join(number(key) + b"N" for key in keys)
    return pickled(b"(", number(keys[0]), b"q\x00}(", entries, b"u", b"h\x00Ns" * again, b"t")


@pytest.mark.parametrize(
    ("size", "stride"),
    [((2, 2) + (1,) * 30, (0, 0) + (2**60,) * 30), ((0,) * 32, (0,) * 32), ((0,) * 9, (0,) * 9)],
    ids=["huge-strides", "empty", "one-too-many"],
)
def test_tensors_of_many_dimensions_are_refused_at_the_first(size, stride, costly) -> None:
    with pytest.raises(Undecodable, match=r"bad tensor: .* at most 8 integers"):
        decode_value(tensors(size, stride), BUDGET)
    assert len(costly) == 2  # the storage, and the tensor


def test_arrays_of_many_dimensions_are_refused() -> None:
    # As NumPy writes them: the largest shape that is taken, and one more.
    for shape in ((1,) * 8, (1,) * 9):
        content = pickle.dumps(torch.zeros(shape).numpy())
        if len(shape) == 8:
            assert decode_value(content, BUDGET).shape == shape
        else:
            with pytest.raises(Undecodable, match=r"bad array: .* at most 8"):
                decode_value(content, BUDGET)


@pytest.mark.parametrize(
    "content",
    [
        tensors((2, 2) + (1,) * 6, (0, 0) + (2**60,) * 6),
        tensors((0,) * 8, (0,) * 8),
        repeated("collections", "OrderedDict", b")"),
        integers(*range(1, 60), again=MANY),
    ],
    ids=["tensors", "empty-tensors", "OrderedDicts", "one-number-as-key"],
)
def test_costly_steps_are_as_few_as_the_budget_says(content, costly) -> None:
    with pytest.raises(Undecodable, match="too many objects"):
        decode_value(content, BUDGET)
    assert ALLOWED / 2 < sum(costly) <= ALLOWED
    assert len(costly) <= ALLOWED / COSTLY < MANY


def test_numbers_that_could_collide_are_refused_after_64_of_them(costly) -> None:
    with pytest.raises(Undecodable, match=r"too many objects: .* numbers as keys"):
        decode_value(integers(*range(1, 4091), again=5 * MANY), Budget(10**9, 10**6))
    assert len(costly) == 65
    assert len(decode_value(pickle.dumps(dict.fromkeys(range(64))), BUDGET)) == 64


def test_a_model_of_2000_tensors_is_within_the_transports_default() -> None:
    model = {f"layer{index}.weight": torch.full((2, 2), float(index)) for index in range(2000)}
    for protocol in (2, 4, 5):
        decoded = decode_value(pickle.dumps(model, protocol), Budget(10**8, 200_000))
        assert len(decoded) == 2000
        assert torch.equal(decoded["layer7.weight"], model["layer7.weight"])
