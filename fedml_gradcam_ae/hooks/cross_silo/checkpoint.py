"""A server's state on disk: always whole, however the process ends, and unable to run code.

One file in the safetensors format: the global model and the tensors of the defense's state; everything else is JSON
in its metadata, with a SHA-256 of the whole file (taken while 64 zeros stand in the digest's place).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fedml_gradcam_ae.contract.settings import SettingsError
from fedml_gradcam_ae.contract.shown import printable, shown
from fedml_gradcam_ae.hooks.cross_silo.structure import put_together, take_apart

FORMAT = "fedml_gradcam_ae server"
VERSION = 1
NO_DIGEST = "0" * 64
DIGEST_KEY = b'"sha256":"'
LARGEST_HEADER = 100_000_000  # safetensors' own bound


@dataclass(frozen=True)
class Owner:
    """What a state belongs to; it fits no other.

    Attributes:
        rounds: of the whole run.
        defense: the type of the defense and those of its settings that its state depends on; empty without one.
    """

    rounds: int
    defense: Mapping[str, Any]


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: how many rounds are done, the global model, and the defense's state."""

    rounds_done: int
    model: dict[str, Tensor]
    defense: dict[str, Any]


class Checkpoint:
    """One file in a folder, replaced in one step.

    Args:
        folder: made if it does not exist.
        owner: the run that it belongs to.
    """

    def __init__(self, folder: str | Path, owner: Owner) -> None:
        self.path = Path(folder) / "server.safetensors"
        self.partial = self.path.with_suffix(".partial")
        self.owner = owner

    def try_out(self, model: Mapping[str, Tensor], defense: Mapping[str, Any]) -> None:
        """Write a state and remove it, so that what cannot work shows before the first round.

        Raises:
            SettingsError: if it cannot be written, or holds what a checkpoint cannot.
        """
        try:
            self._write(0, model, defense)
            self.partial.unlink()
        except (OSError, TypeError, ValueError) as error:
            raise SettingsError(
                f"server_args.checkpoint_dir: {self.path.parent} cannot be used: {error}. Name a folder that this "
                "process may write to."
                if isinstance(error, OSError)
                else f"server_args.checkpoint_dir: the state of this defense cannot be saved: {error}."
            ) from None

    def save(self, rounds_done: int, model: Mapping[str, Tensor], defense: Mapping[str, Any]) -> None:
        """Write the state; until it is all on disk the previous one stays."""
        self._write(rounds_done, model, defense)
        os.replace(self.partial, self.path)
        _sync(self.path.parent)

    def _write(self, rounds_done: int, model: Mapping[str, Tensor], defense: Mapping[str, Any]) -> None:
        model_node, tensors = take_apart(dict(model), "model")
        defense_node, more = take_apart(dict(defense), "defense")
        content = {
            "rounds_done": rounds_done,
            "defense": dict(self.owner.defense),
            "model": model_node,
            "state": defense_node,
        }
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "content": json.dumps(content, allow_nan=False),
            "sha256": NO_DIGEST,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file({**tensors, **more}, self.partial, metadata)
        with self.partial.open("r+b") as file:
            size = file.read(8)
            place = _digest_place(size + file.read(int.from_bytes(size, "little")))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(place)
            file.write(digest.encode())
            file.flush()
            os.fsync(file.fileno())

    def load(self, model: Mapping[str, Tensor]) -> Saved | None:
        """The last state that was saved, or None.

        Args:
            model: the network's own weights: the names, shapes and types that the saved ones must have.

        Raises:
            SettingsError: if the file is torn, foreign, changed, of another version or of another run.
        """
        older = self.path.with_name("server.pt")
        if not os.path.lexists(self.path):
            if os.path.lexists(older):
                raise _wrong(older, "it is a checkpoint of version 0.1.0, which is not read any more", "finish with it")
            return None
        saved = self._read()
        if problem := _model_problem(saved.model, model):
            raise _wrong(self.path, f"its model is not that of this network: {problem}", "use the network it is of")
        return saved

    def _read(self) -> Saved:
        try:
            found = _read_regular(self.path)
            header = _header(found)
        except OSError as error:
            dangling = self.path.is_symlink() and isinstance(error, FileNotFoundError)
            why = "it is a symbolic link to a file that does not exist" if dangling else error.strerror
            raise _wrong(self.path, f"it cannot be read: {why}") from None
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise _wrong(self.path, "it is torn, or no checkpoint of this server") from None
        if header.get("format") != FORMAT:
            raise _wrong(self.path, "it is no checkpoint of this server")
        if header.get("version") != str(VERSION):
            version = header.get("version")
            version = printable(version, 20) if isinstance(version, str) else shown(version)
            raise _wrong(
                self.path,
                f"it has format version {version}, and this version of fedml_gradcam_ae reads {VERSION}",
                "use the version that wrote it",
            )
        try:
            place = _digest_place(found)
            rest = hashlib.sha256(found[:place])
            rest.update(NO_DIGEST.encode())
            rest.update(memoryview(found)[place + len(NO_DIGEST) :])
            if rest.hexdigest() != header["sha256"]:
                raise _wrong(self.path, "it is torn or was changed: its SHA-256 does not fit")
            return self._take(json.loads(header["content"]), safetensors.torch.load(found))
        except SettingsError:
            raise
        except Exception as error:  # the digest fits whatever its writer wrote
            raise self.unusable(error) from None

    def _take(self, content: Any, tensors: Mapping[str, Tensor]) -> Saved:
        """The state in a file's content, if it is of this run; any exception if it is none."""
        done, defense = content["rounds_done"], content["defense"]
        if type(done) is not int:
            raise _wrong(self.path, f"its number of rounds done is {shown(done)}, and should be a whole number")
        if not 0 <= done <= self.owner.rounds:
            raise _wrong(
                self.path,
                f"it is from after round {shown(done)}, and comm_round is {self.owner.rounds}",
                "give the comm_round it is of",
            )
        if problem := _defense_problem(defense, self.owner.defense):
            raise _wrong(self.path, f"it is of another defense: {problem}", "turn that one on")
        model, state = put_together(content["model"], tensors), put_together(content["state"], tensors)
        if not isinstance(state, dict):
            raise _wrong(self.path, f"the state of its defense is {shown(state)}, and should be a dictionary")
        return Saved(done, model, state)

    def unusable(self, error: Exception) -> SettingsError:
        """What to raise where the file is whole and what it holds is wrong."""
        what = f"it does not hold a server's state: {type(error).__name__}: {printable(str(error))}"
        return _wrong(self.path, what)


def _wrong(path: Path, what: str, instead: str | None = None) -> SettingsError:
    ways = [*([instead] if instead else []), "delete it", "start without resume"]
    where = printable(str(path), 4096)
    return SettingsError(f"The checkpoint {where} cannot be used: {what}. Either {' or '.join(ways)}.")


def _read_regular(path: Path) -> bytes:
    """The bytes of a file; OSError for anything but a regular file, since a pipe would keep the server waiting."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(_regular(handle), "rb") as file:
        return file.read()


def _regular(handle: int) -> int:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def _header(found: bytes) -> dict[str, str]:
    """The metadata of a safetensors file."""
    size = int.from_bytes(found[:8], "little")
    if len(found) < 8 or size > min(len(found) - 8, LARGEST_HEADER):
        raise ValueError("no header")
    metadata: dict[str, str] = json.loads(found[8 : 8 + size]).get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("no metadata")
    return metadata


def _digest_place(found: bytes) -> int:
    """Where the 64 digits of the digest begin."""
    size = int.from_bytes(found[:8], "little")
    return found.index(DIGEST_KEY, 8, 8 + size) + len(DIGEST_KEY)


def _model_problem(found: object, expected: Mapping[str, Tensor]) -> str | None:
    if not isinstance(found, dict) or list(found) != list(expected):
        return "other names"
    for name, tensor in found.items():
        like = expected[name]
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape or tensor.dtype != like.dtype:
            shape = f"{tuple(tensor.shape)}, {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            return f"{printable(name, 60)} is {printable(shape)}, and should be {tuple(like.shape)}, {like.dtype}"
        if not finite({name: tensor}):
            return f"{printable(name, 60)} holds NaN or infinity"
    return None


def finite(model: Mapping[str, Tensor]) -> bool:
    """Whether a model holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(t).all()) for t in model.values() if t.is_floating_point() or t.is_complex())


def _defense_problem(found: object, expected: Mapping[str, Any]) -> str | None:
    if _same(found, dict(expected)):
        return None
    if not isinstance(found, dict):
        return f"{shown(found)} stands in the place of its type and settings"
    if found.get("type") != expected.get("type"):
        return f"{_kind(found)}, and here it is {_kind(expected)}"
    before, now = found.get("settings") or {}, expected.get("settings") or {}
    if not isinstance(before, dict):
        return f"its settings are {shown(before)}, and should be a dictionary"
    names = [name for name in sorted({*before, *now}) if not _same(before.get(name), now.get(name))]
    if not names:
        return "it is not described as this version does"
    return "; ".join(
        f"{printable(name, 60)} was {_setting(before.get(name))}, and is {_setting(now.get(name))}"
        for name in names[:5]
    )


def _same(a: object, b: object) -> bool:
    """Equality as in JSON, where true is not 1."""
    return a == b and json.dumps(_booleans(a), sort_keys=True) == json.dumps(_booleans(b), sort_keys=True)


def _booleans(value: object) -> object:
    """A value with everything but its booleans left out."""
    if isinstance(value, Mapping):
        return {str(key): _booleans(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_booleans(item) for item in value]
    return value if isinstance(value, bool) else None


def _kind(defense: Mapping[str, Any]) -> str:
    kind = defense.get("type")
    return printable(kind, 60) if isinstance(kind, str) and kind else "none" if not kind else shown(kind)


def _setting(value: object) -> str:
    return printable(repr(value), 60) if isinstance(value, list | dict) else shown(value)


def _sync(folder: Path) -> None:
    """Have the folder's own entry on disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
