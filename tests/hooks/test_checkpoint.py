"""The server's state on disk: what goes in comes out, and nothing else is ever loaded."""

import hashlib
import json
import math
import os
import struct
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedml_gradcam_ae.contract import registry
from fedml_gradcam_ae.contract.interfaces import overrides
from fedml_gradcam_ae.contract.settings import DefenseSettings, SettingsError
from fedml_gradcam_ae.hooks.cross_silo import persistence
from fedml_gradcam_ae.hooks.cross_silo.checkpoint import NO_DIGEST, Checkpoint, Owner
from fedml_gradcam_ae.hooks.cross_silo.structure import put_together, take_apart
from tiny import state_of, tiny_cnn

DEFENSE = {"type": "gradcam_ae", "settings": {"alpha": 1.0, "permanent": True}}
MODEL = OrderedDict(w=torch.tensor([[1.0, -2.0]]), n=torch.tensor(3))
STATE = {"flags": {3: {1, "a"}, 4: set()}, "sums": {1: torch.tensor([0.5])}, "top": math.inf, "pair": (None, True, 1)}


def checkpoint(folder, rounds=9, defense=DEFENSE) -> Checkpoint:
    return Checkpoint(folder, Owner(rounds, defense))


def same(a, b) -> bool:
    """Equal in value and type, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
            and torch.equal(bits(a), bits(b))
        )
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)))


def bits(tensor):
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def test_what_is_saved_is_loaded(tmp_path) -> None:
    checkpoint(tmp_path / "made" / "here").save(2, MODEL, STATE)
    saved = checkpoint(tmp_path / "made" / "here").load(MODEL)
    assert saved.rounds_done == 2
    assert same(saved.model, dict(MODEL))
    assert same(saved.defense, STATE)
    assert os.listdir(tmp_path / "made" / "here") == ["server.safetensors"]
    checkpoint(tmp_path / "made" / "here").save(3, MODEL, {})
    assert checkpoint(tmp_path / "made" / "here").load(MODEL).rounds_done == 3


def tensors():
    whole = torch.arange(12.0)
    nan = torch.tensor([math.nan, math.inf, -0.0, 1e-45])
    yield "not contiguous", whole.view(3, 4).T
    yield "part of another", whole[2:5]
    yield "expanded", torch.tensor([1.0]).expand(1000)
    yield "empty", torch.empty(0, 3)
    yield "a number", torch.tensor(3.5, dtype=torch.float64)
    yield "NaN, infinity, -0, subnormal", nan
    yield "requires a gradient", torch.nn.Parameter(torch.ones(2))
    yield "conjugated", torch.tensor([1 + 2j]).conj()
    yield "channels last", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for dtype in (torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int16, torch.int64, torch.bool):
        yield str(dtype), torch.tensor([0, 1, 1]).to(dtype)
    yield "complex128", torch.tensor([1 + 2j], dtype=torch.complex128)
    yield "float8", torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)


@pytest.mark.parametrize(("what", "tensor"), list(tensors()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_tensor(tmp_path, what, tensor) -> None:
    checkpoint(tmp_path).save(1, MODEL, {"a": tensor})
    assert same(checkpoint(tmp_path).load(MODEL).defense["a"], tensor.detach()), what


def test_a_tensor_in_two_places(tmp_path) -> None:
    whole = torch.arange(4.0)
    checkpoint(tmp_path).save(1, {"w": whole, "tied": whole}, {"same": [whole, whole], "part": whole[1:]})
    saved = checkpoint(tmp_path).load({"w": whole, "tied": whole})
    assert saved.defense["same"][0] is saved.defense["same"][1]
    assert same(saved.defense, {"same": [whole, whole], "part": whole[1:]})
    assert same(saved.model, {"w": whole, "tied": whole})


keys = st.integers() | st.text() | st.booleans() | st.tuples(st.integers(), st.text())
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner) | st.sets(keys),
    max_leaves=20,
)


@given(values)
def test_every_plain_state(value) -> None:
    node, tensors = take_apart(value)
    assert tensors == {}
    assert same(put_together(json.loads(json.dumps(node, allow_nan=False)), {}), value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), ["defense['a']", "object"]),
        (torch.eye(2).to_sparse(), ["dense tensors only", "sparse"]),
        (torch.empty(2, device="meta"), ["dense tensors only", "meta"]),
        (b"bytes", ["bytes"]),
    ],
)
def test_a_state_that_a_checkpoint_cannot_hold_shows_at_the_start(tmp_path, value, words) -> None:
    with pytest.raises(SettingsError) as caught:
        checkpoint(tmp_path).try_out(MODEL, {"a": value})
    assert all(word in str(caught.value) for word in ["state of this defense", *words]), caught.value


def test_a_state_that_holds_itself(tmp_path) -> None:
    loop = []
    loop.append(loop)
    with pytest.raises(SettingsError, match="nested more than 32 levels"):
        checkpoint(tmp_path).try_out(MODEL, {"a": loop})


def test_trying_out_leaves_the_checkpoint_alone(tmp_path) -> None:
    checkpoint(tmp_path).save(2, MODEL, STATE)
    before = (tmp_path / "server.safetensors").read_bytes()
    checkpoint(tmp_path).try_out(MODEL, STATE)
    assert (tmp_path / "server.safetensors").read_bytes() == before
    assert os.listdir(tmp_path) == ["server.safetensors"]


def test_a_folder_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=r"server_args\.checkpoint_dir: .*file.* cannot be used"):
            checkpoint(folder).try_out(MODEL, {})


def refusal(folder, model=MODEL, **owner) -> str:
    """What loading says; it must say which file, and what to do."""
    with pytest.raises(SettingsError) as caught:
        checkpoint(folder, **owner).load(model)
    message = str(caught.value)
    assert message.startswith(f"The checkpoint {folder}")
    assert message.endswith("delete it or start without resume.")
    assert "\n" not in message
    return message


def test_an_incomplete_file(tmp_path) -> None:
    checkpoint(tmp_path).save(2, MODEL, STATE)
    path = tmp_path / "server.safetensors"
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 100), len(whole) - 1, 1, 8]:
        path.write_bytes(whole[:length])
        assert "incomplete" in refusal(tmp_path)
    path.write_bytes(whole + b"\0")
    assert "incomplete" in refusal(tmp_path)


def test_every_flipped_bit_is_noticed(tmp_path) -> None:
    checkpoint(tmp_path).save(2, {"w": torch.tensor([1.0])}, {"a": 1})
    path = tmp_path / "server.safetensors"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for flip in (1 << (place % 8), 0xFF):
            changed = bytearray(whole)
            changed[place] ^= flip
            path.write_bytes(changed)
            refusal(tmp_path, {"w": torch.tensor([1.0])})
    path.write_bytes(whole)
    assert checkpoint(tmp_path).load({"w": torch.tensor([1.0])}).defense == {"a": 1}


def test_files_of_others(tmp_path) -> None:
    path = tmp_path / "server.safetensors"
    path.write_bytes(os.urandom(1000))
    assert "incomplete, or no checkpoint" in refusal(tmp_path)
    torch.save({"rounds_done": 1}, path)
    assert "incomplete, or no checkpoint" in refusal(tmp_path)
    safetensors.torch.save_file(dict(MODEL), path)
    assert "no checkpoint of this server" in refusal(tmp_path)
    path.write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000)
    assert "incomplete, or no checkpoint" in refusal(tmp_path)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in refusal(tmp_path)


def test_the_file_of_version_0_1_0(tmp_path) -> None:
    torch.save({"rounds_done": 1}, tmp_path / "server.pt")
    assert "version 0.1.0, which is not read any more" in refusal(tmp_path)
    checkpoint(tmp_path).save(1, MODEL, {})
    assert checkpoint(tmp_path).load(MODEL).rounds_done == 1


def test_a_newer_version(tmp_path) -> None:
    metadata = {"format": "fedml_gradcam_ae server", "version": "2", "content": "[]", "sha256": NO_DIGEST}
    safetensors.torch.save_file({}, tmp_path / "server.safetensors", metadata)
    assert "format version 2, and this version of fedml_gradcam_ae reads 1" in refusal(tmp_path)


@pytest.mark.parametrize("done", [-5, 10])
def test_a_number_of_rounds_that_cannot_be(tmp_path, done) -> None:
    checkpoint(tmp_path).save(done, MODEL, {})
    assert f"it is from after round {done}, and comm_round is 9" in refusal(tmp_path)


@pytest.mark.parametrize("done", [2.0, "2", None, True])
def test_a_number_of_rounds_that_is_none(tmp_path, done) -> None:
    checkpoint(tmp_path).save(done, MODEL, {})
    assert f"its number of rounds done is {done!r}, and should be a whole number" in refusal(tmp_path)


def write_crafted(folder, tensors=None, **changes) -> None:
    """A checkpoint with other content, whose SHA-256 is right; `...` leaves a key out."""
    model, saved = take_apart(dict(MODEL), "model")
    content = {"rounds_done": 1, "defense": DEFENSE, "model": model, "state": {"dict": []}, **changes}
    content = json.dumps({key: value for key, value in content.items() if value is not ...})
    metadata = {"format": "fedml_gradcam_ae server", "version": "1", "content": content, "sha256": NO_DIGEST}
    data = safetensors.torch.save({**saved, **(tensors or {})}, metadata)
    digest = hashlib.sha256(data).hexdigest().encode()
    place = data.index(b'"sha256":"') + len(b'"sha256":"')
    (folder / "server.safetensors").write_bytes(data[:place] + digest + data[place + 64 :])


LONG, CODES = "x" * 600_000, "\x1b[31mred\x07\n\u202e"
STATES = [[1], 5, None, "abc", True]
DEFENSES = [None, 5, "abc", ["x"], {}, {"type": LONG}, {"type": CODES}, {"type": [1]}, {**DEFENSE, "more": 1}]
SETTINGS = [5, "abc", ["x"], True, {LONG: 1}, {CODES: 1}, {"alpha": LONG}, {"alpha": CODES}, {"alpha": [CODES, LONG]}]
SETTINGS += [{"alpha": True, "permanent": True}, {"alpha": 1.0, "permanent": 1}, {str(n): 10**401 for n in range(999)}]
TENSORS = [
    {"tensor": "model.0", "device": d}
    for d in ("foo", "mps", "meta", "cuda:x", "cuda:999", "cuda:" + "1" * 5000, 5, None, CODES)
]
TENSORS += [{"tensor": name, "complex": value} for name in ("three", "model.1") for value in (True, 1, "yes", [])]
NODES = [
    {"float": 10**401},
    {"float": LONG},
    {"float": []},
    {"tuple": 5},
    {"tuple": "abc"},
    {"set": [[1]]},
    {CODES: []},
]
NODES += [{"dict": ["a"]}, {"dict": [[[1], 2]]}, {}, {"tuple": [], "set": []}, {"tensor": LONG}, {"tensor": []}]


def crafted():
    yield from ({key: ...} for key in ("rounds_done", "defense", "model", "state"))
    yield from ({"rounds_done": value} for value in (10**401, LONG, CODES, [1], {"a": 1}, True))
    yield from ({"state": value} for value in STATES)
    yield from ({"defense": value} for value in DEFENSES)
    yield from ({"defense": {**DEFENSE, "settings": value}} for value in SETTINGS)
    for key in ("model", "state"):
        yield from ({key: {"dict": [["w", node], ["n", 1]]}} for node in NODES + TENSORS)
    yield from ({"model": value} for value in (None, 5, [], {"dict": [[LONG, 1]]}, {"dict": [["w", CODES], ["n", 1]]}))


@pytest.mark.parametrize("changes", list(crafted()), ids=lambda changes: ascii(changes)[:70])
def test_a_crafted_file_gets_one_short_message(tmp_path, changes) -> None:
    write_crafted(tmp_path, {"three": torch.ones(3)}, **changes)
    message = refusal(tmp_path)
    assert message.isprintable()
    assert len(message) < 1500 + len(str(tmp_path))


def test_what_is_crafted_is_taken_where_nothing_is_wrong_with_it(tmp_path) -> None:
    pairs = torch.ones(3, 2)
    for device, value in (("cpu", pairs), ("cuda:99", pairs)):  # of a machine that had more of them
        node = {"tensor": "state.0", "device": device, "complex": True}
        write_crafted(tmp_path, {"state.0": value}, state={"dict": [["a", node]]})
        assert same(checkpoint(tmp_path).load(MODEL).defense, {"a": torch.view_as_complex(value)})


def test_a_pipe_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "server.safetensors")
    assert "not a regular file" in refusal(tmp_path)


def test_a_symbolic_link(tmp_path) -> None:
    (tmp_path / "server.safetensors").symlink_to(tmp_path / "elsewhere")
    assert "a symbolic link to a file that does not exist" in refusal(tmp_path)
    (tmp_path / "there").mkdir()
    checkpoint(tmp_path / "there").save(1, MODEL, {})
    (tmp_path / "there" / "server.safetensors").rename(tmp_path / "elsewhere")
    assert checkpoint(tmp_path).load(MODEL).rounds_done == 1


class Aggregator:
    """What a server's persistence needs of FedML's."""

    def get_global_model_params(self):
        return MODEL

    def set_global_model_params(self, model) -> None:
        raise AssertionError("nothing may be taken from a checkpoint that is refused")


@pytest.mark.parametrize("error", [KeyError(CODES), TypeError(LONG), OverflowError("too large")], ids=type)
def test_a_state_that_the_defense_refuses(tmp_path, monkeypatch, error) -> None:
    class Defense:
        def restore(self, state) -> None:
            raise error

    monkeypatch.setattr(persistence.aggregation, "defense", Defense)
    monkeypatch.setattr(persistence, "_defense", lambda args: DEFENSE)
    checkpoint(tmp_path).save(1, MODEL, {})
    settings = SimpleNamespace(checkpoint_dir=tmp_path, resume=True, release=[])
    with pytest.raises(SettingsError, match="does not hold a server's state") as caught:
        persistence.Persistence(SimpleNamespace(comm_round=9), settings).restore(Aggregator())
    assert type(error).__name__ in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_the_model_of_another_network(tmp_path) -> None:
    checkpoint(tmp_path).save(1, MODEL, {})
    assert "other names" in refusal(tmp_path, {**MODEL, "more": MODEL["w"]})
    assert "other names" in refusal(tmp_path, {"w": MODEL["w"]})
    assert "w is (1, 2), torch.float32, and should be (2, 1)" in refusal(tmp_path, {**MODEL, "w": MODEL["w"].T})
    assert "should be (1, 2), torch.float64" in refusal(tmp_path, {**MODEL, "w": MODEL["w"].double()})
    for value in (math.nan, math.inf):
        checkpoint(tmp_path).save(1, {**MODEL, "w": torch.tensor([[1.0, value]])}, {})
        assert "w holds NaN or infinity" in refusal(tmp_path)


def test_the_state_of_another_defense(tmp_path) -> None:
    checkpoint(tmp_path).save(1, MODEL, {})
    assert "gradcam_ae, and here it is krum" in refusal(tmp_path, defense={"type": "krum", "settings": {}})
    assert "gradcam_ae, and here it is none" in refusal(tmp_path, defense={})
    other = {"type": "gradcam_ae", "settings": {"alpha": 2.0, "permanent": True}}
    assert "alpha was 1.0, and is 2.0" in refusal(tmp_path, defense=other)


def test_nothing_to_load(tmp_path) -> None:
    assert checkpoint(tmp_path).load(MODEL) is None
    (tmp_path / "server.partial").write_bytes(b"a server that was killed while it wrote")
    assert checkpoint(tmp_path).load(MODEL) is None
    checkpoint(tmp_path).save(1, MODEL, {})
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["server.safetensors"]


def test_a_whole_network(tmp_path) -> None:
    state = state_of(tiny_cnn())
    checkpoint(tmp_path).save(1, state, {})
    assert same(checkpoint(tmp_path).load(state).model, dict(state))


@pytest.mark.parametrize("name", sorted(name for name, cls in registry.defenses().items() if overrides(cls, "state")))
def test_the_state_of_every_defense(tmp_path, make_round, name) -> None:
    cls = registry.defenses()[name]
    defense = cls(getattr(cls, "Settings", DefenseSettings)())
    for number in (1, 2, 3):
        made = make_round(6, number=number)
        if number > 1:  # rules that look at steps of the global model need some
            made = replace(made, global_model={n: t + 0.01 * number for n, t in made.global_model.items()})
        defense.judge(made)
    state = defense.state()
    checkpoint(tmp_path).save(1, MODEL, state)
    loaded = checkpoint(tmp_path).load(MODEL).defense
    assert same(loaded, state)
    cls(getattr(cls, "Settings", DefenseSettings)()).restore(loaded)
