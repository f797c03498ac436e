"""What honest clients send is decoded to what pickle reads, in memory of its own, and within the budget."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Undecodable, decode_message, decode_value
from fuzz_decoding import fuzz_blindly, mutate
from hostile_pickles import HOSTILE
from pickled import dtype, floats, name, number, numbers, pickled, raw, tensor, text
from plain_values import SMALL, attempt, check_plain
from real_messages import Net, equal, real_messages, values

LARGE = Budget(bytes=400_000_000)
ROOT = Path(__file__).parents[2]
UNREADABLE = "dtypes"  # torch pickles tensors of 8-bit floats, but cannot read them


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key", values())
def test_a_value_is_decoded_to_what_pickle_reads(key, protocol) -> None:
    content = pickle.dumps(values()[key], protocol)
    decoded = decode_value(content, SMALL)
    assert equal(decoded, values()[key])
    check_plain(decoded, SMALL)
    if key != UNREADABLE:
        assert equal(decoded, pickle.loads(content))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_the_pure_python_pickler_are_decoded(protocol) -> None:
    for value in values().values():
        assert equal(decode_value(pickle._dumps(value, protocol), SMALL), value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_message_of_fedml_is_decoded(protocol) -> None:
    from fedml.core.distributed.communication.message import Message

    message = Message(3, 2, 0)
    message.add_params("model_params", Net().state_dict())
    message.add_params("num_samples", np.int64(20))
    message.add_params("client_os", "linux")
    decoded = decode_message(pickle.dumps(message, protocol), SMALL)
    assert (decoded.type, decoded.sender, decoded.receiver) == (3, 2, 0)
    assert list(decoded.parameters) == ["model_params", "num_samples", "client_os"]
    assert equal(decoded.parameters["model_params"], message.get("model_params"))
    assert equal(decoded.parameters["num_samples"], np.int64(20))


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_state_dicts_of_torchvision_are_decoded(network) -> None:
    state = getattr(torchvision.models, network)(num_classes=10).state_dict()
    decoded = decode_value(pickle.dumps(state), LARGE)
    assert type(decoded) is OrderedDict
    assert equal(decoded, OrderedDict(state))


def test_a_model_trains_with_what_was_decoded() -> None:
    first, second = Net(), Net()
    second.wide = second.wide.clone()  # one that torch can copy into
    second.load_state_dict(decode_value(pickle.dumps(first.state_dict()), SMALL))
    assert equal(second.state_dict(), first.state_dict())
    decoded = decode_value(pickle.dumps(nn.Parameter(torch.ones(2))), SMALL)
    assert type(decoded) is torch.Tensor
    decoded.requires_grad_().sum().backward()
    assert torch.equal(decoded.grad, torch.ones(2))


def test_dense_layouts_are_kept_and_others_made_contiguous() -> None:
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    for value in (image.to(memory_format=torch.channels_last), image.permute(3, 1, 0, 2), image[0, 1]):
        assert decode_value(pickle.dumps(value), SMALL).stride() == value.stride()
    for value in (image[..., ::2], image[0, 0, 0, 0].expand(3, 4), image[:, :, 1], image[:, 1]):
        decoded = decode_value(pickle.dumps(value), SMALL)
        assert decoded.is_contiguous()
        assert torch.equal(decoded, value)


def test_a_window_into_a_large_storage_takes_what_it_shows() -> None:
    large = torch.arange(300_000.0)
    for window in (large[7:10], large[::100_000], large[100:101].expand(5)):
        decoded = decode_value(pickle.dumps(window.clone().set_(window)), Budget(bytes=100_000))
        assert torch.equal(decoded, window)
        assert decoded.untyped_storage().nbytes() == 4 * window.numel()


def test_overlapping_views_are_copied_out() -> None:
    # size, stride: rows that overlap, a diagonal, and elements 0, 3, 0, 3, which span four elements and are not dense
    for size, stride in (((3, 2), (1, 1)), ((2,), (3,)), ((2, 2), (0, 3)), ((2, 2, 2), (2, 1, 0))):
        decoded = decode_value(pickled(tensor(floats(4), number(0), numbers(*size), numbers(*stride))), SMALL)
        assert torch.equal(decoded, torch.arange(4.0).as_strided(size, stride))
        check_plain(decoded, SMALL)


def test_the_stride_of_a_single_element_does_not_matter() -> None:
    for size in ((1,), (1, 2), (2, 1), (1, 0), (0, 1)):
        for stride in (2**63, 2**64 - 1, 2**62, 0):
            steps = [1 if length != 1 else stride for length in size]
            decoded = decode_value(pickled(tensor(floats(4), number(1), numbers(*size), numbers(*steps))), SMALL)
            assert torch.equal(decoded, torch.arange(1.0, 3).reshape(-1)[: decoded.numel()].reshape(size))
            assert all(step <= 4 for step in decoded.stride())


def test_random_views_are_those_of_torch() -> None:
    draw, seen = random.Random(0), 0
    for _ in range(400):
        rank = draw.randrange(5)
        size = tuple(draw.randrange(4) for _ in range(rank))
        stride = tuple(draw.randrange(7) for _ in range(rank))
        offset = draw.randrange(6)
        content = pickled(tensor(floats(12), number(offset), numbers(*size), numbers(*stride)))
        try:
            expected = torch.arange(12.0).as_strided(size, stride, offset)
        except RuntimeError:
            expected = None
        if expected is None:
            with pytest.raises(Undecodable, match="bad tensor"):
                decode_value(content, SMALL)
        else:
            decoded = decode_value(content, SMALL)
            check_plain(decoded, SMALL)
            assert torch.equal(decoded, expected)
            seen += expected.numel() > 1
    assert seen > 50


def test_a_tensor_of_a_gpu_is_decoded_to_the_cpu() -> None:
    content = pickle.dumps(torch.arange(3.0), 4)
    at = content.index(b"X\x03\x00\x00\x00cpu")
    for device in (b"cuda:0", b"cuda", b"mps", b"xpu:11"):
        moved = content[:at] + b"X" + len(device).to_bytes(4, "little") + device + content[at + 8 :]
        grown = len(device) - 3
        length = moved.index(b"B", 80) + 1
        size = int.from_bytes(moved[length : length + 4], "little") + grown
        moved = moved[:length] + size.to_bytes(4, "little") + moved[length + 4 :]
        frame = int.from_bytes(moved[3:11], "little") + grown
        decoded = decode_value(moved[:3] + frame.to_bytes(8, "little") + moved[11:], SMALL)
        assert decoded.device.type == "cpu"
        assert torch.equal(decoded, torch.arange(3.0))


def test_what_is_shared_stays_shared() -> None:
    one = torch.ones(2)
    decoded = decode_value(pickle.dumps({"a": [one], "b": [one, (b"x",)]}), SMALL)
    assert decoded["a"][0] is decoded["b"][0]
    assert decoded["b"][1] == (b"x",)


def test_nothing_of_the_content_is_kept() -> None:
    content = bytearray(pickle.dumps([*values().values(), b"x" * 5000]))
    decoded = decode_value(content, SMALL)
    before = copy.deepcopy(decoded)
    content.extend(b"can be resized: no view is left")
    content[:] = bytes(len(content))
    assert equal(decoded, before)
    broken = bytearray(pickle.dumps([b"x" * 5000])[:-1])
    with pytest.raises(Undecodable) as found:
        decode_value(broken, SMALL)
    broken.extend(b"can be resized, with the error still there")
    assert found.value.kind == "broken"


def test_memoryviews_of_any_format_are_decoded() -> None:
    content = pickle.dumps([1, "a"] * 3, 2)
    content = content[:-1] + b"q\x00" * ((-len(content)) % 8 // 2) + b"."
    assert decode_value(memoryview(content), SMALL) == [1, "a"] * 3


def test_no_warning_and_no_print(capfd) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in real_messages():
            attempt(content)
    assert capfd.readouterr() == ("", "")


def test_the_settings_of_torch_do_not_change_what_is_decoded() -> None:
    content = pickle.dumps(torch.arange(3))
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode(False), torch.no_grad():
            decoded = decode_value(content, SMALL)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(decoded, torch.arange(3))


KEYS = st.text(max_size=8) | st.integers(-(2**31) + 1, 2**31 - 1)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=30,
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(NESTED, st.integers(2, 5))
def test_nested_values_are_decoded_to_what_pickle_reads(value, protocol) -> None:
    content = pickle.dumps(value, protocol)
    assert equal(decode_value(content, SMALL), pickle.loads(content))


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.integers(0, 2**32))
def test_mutated_messages_are_refused_or_decoded_to_plain_values(seed) -> None:
    draw = random.Random(seed)
    attempt(mutate(draw.choice(CORPUS), draw, CORPUS))


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_decoded_to_plain_values(content) -> None:
    attempt(b"\x80\x04" + content)
    attempt(content)


CORPUS = [content for content in real_messages() + [case.content for case in HOSTILE] if len(content) < 8192]


@pytest.mark.long
def test_ten_seconds_of_fuzzing_find_nothing() -> None:
    assert fuzz_blindly(10, seed=3) > 150


@pytest.mark.parametrize("end", range(0, 1000, 7))
def test_a_message_that_is_cut_off_is_refused(end) -> None:
    content = pickle.dumps(values()["numbers"]) + pickle.dumps(values()["a state dict"])
    with pytest.raises(Undecodable):
        decode_value(content[-1000 + end :] if end % 2 else content[: end + 1], SMALL)


def test_values_that_fit_the_budget_exactly_are_decoded_and_one_more_is_not() -> None:
    assert decode_value(pickle.dumps([1] * 9), Budget(bytes=10**6, objects=10)) == [1] * 9
    with pytest.raises(Undecodable, match="too many objects"):
        decode_value(pickle.dumps([1] * 10), Budget(bytes=10**6, objects=10))
    deep = [[[]]]
    assert decode_value(pickle.dumps(deep), Budget(bytes=10**6, depth=3)) == deep
    with pytest.raises(Undecodable, match="too deep"):
        decode_value(pickle.dumps([deep]), Budget(bytes=10**6, depth=3))
    with pytest.raises(Undecodable, match="too large"):
        decode_value(pickle.dumps(torch.ones(1000)), Budget(bytes=4000))


def test_a_message_of_a_model_fits_a_budget_of_twice_its_size() -> None:
    content = pickle.dumps(torchvision.models.resnet18().state_dict())
    decode_value(content, Budget(bytes=2 * len(content)))


# Each fills a budget of 2.5 MB with another kind of value; the fixed costs must be true for every one.
ONE_TENSOR = tensor(floats(1), number(0), numbers(1), numbers(1))
ENCODED = name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"
FILLING = {
    "ints": pickle.dumps(list(range(10**9, 10**9 + 60_000))),
    "floats": pickle.dumps([number / 3 for number in range(60_000)]),
    "texts": pickle.dumps([str(number) for number in range(30_000)]),
    "wide texts": pickle.dumps([f"{number}😀" for number in range(30_000)]),
    "one wide text": pickled(text("a" * 300_000 + "😀"), text("a" * 200_000 + "模")),
    "a Latin-1 text": pickled(text("a" * 1_200_000 + "é")),
    "bytes": pickle.dumps([bytes([number % 256]) * 40 for number in range(30_000)]),
    "large bytes": pickle.dumps([bytes(500_000) for _ in range(9)]),
    "tuples": pickle.dumps([(number, number, number) for number in range(30_000)]),
    "empty lists": pickle.dumps([[] for _ in range(40_000)]),
    "lists of one": pickle.dumps([[1] for _ in range(40_000)]),
    "dictionaries": pickle.dumps([{} for _ in range(40_000)]),
    "dictionaries of one": pickle.dumps([{1: 1} for _ in range(40_000)]),
    "a dictionary": pickle.dumps(dict.fromkeys(map(str, range(60_000)))),
    "OrderedDicts": pickle.dumps([OrderedDict(a=1) for _ in range(20_000)]),
    "an OrderedDict": pickle.dumps(OrderedDict((str(number), None) for number in range(40_000))),
    "marks": pickled(b"(" * 60_000),
    "memo entries": pickled(b"N", b"".join(b"r" + number.to_bytes(4, "little") for number in range(60_000))),
    "arrays": pickle.dumps([np.zeros(1) for _ in range(9_000)]),
    "scalars": pickle.dumps([np.float32(number) for number in range(20_000)]),
    "tensors": pickled(b"(", ONE_TENSOR * 3000, b"t"),
    "storages": pickled(b"(", floats(1) * 9000, b"t"),
    "the same bytes": pickled(raw(b"x"), b"q\x00(", (name("builtins", "bytes") + b"h\x00\x85R") * 60_000, b"t"),
    "dtypes": pickled(b"(", dtype("f4") * 20_000, b"t"),
    "a text encoded": pickled(text("é" * 300_000), b"q\x00(", ENCODED * 9),
    "nested tuples": pickled(b")" + b"\x85" * 60_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILLING)
def test_memory_stays_within_content_and_budget(kind) -> None:
    content, budget = FILLING[kind], Budget(bytes=2_500_000)
    gc.collect()
    tracemalloc.start()
    try:
        with contextlib.suppress(Undecodable):
            decode_value(content, budget)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < budget.bytes + 500_000
    assert peak > budget.bytes / 100  # it was built, not refused at the start


MEASURE = """
from pathlib import Path
from fedml_gradcam_ae.hooks.cross_silo.decoding import Budget, Undecodable, decode_value
from amplifying import AMPLIFYING
def memory(line):
    found = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(line))
    return 1024 * int(found.split()[1])
decode_value(b"\\x80\\x04N.", Budget(bytes=1000))
Path("/proc/self/clear_refs").write_text("5")  # from here on, the high-water mark is what decoding adds
before = memory("VmRSS")
for content in AMPLIFYING:
    try:
        decode_value(content, Budget(bytes=30_000_000))
    except Undecodable:
        pass
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark")
def test_the_memory_of_the_process_stays_within_the_budget_for_what_amplifies() -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "hooks", ROOT / "tests")))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    # The last of them fills the budget with tensors, some of them where memory was free: the measurement works.
    assert 5_000_000 < int(result.stdout) < 30_000_000 + 10_000_000


def test_tensors_of_one_storage_are_charged_one_by_one() -> None:
    views = tensor(b"h\x00", number(0), numbers(250_000), numbers(1)) * 20
    content = pickled(floats(250_000), b"q\x00\x85(", views, b"t\x86")
    with pytest.raises(Undecodable, match="too large"):
        decode_value(content, Budget(bytes=19_000_000))
    with pytest.raises(Undecodable, match="no plain value"):  # the storage itself
        decode_value(content, Budget(bytes=21_000_000))
