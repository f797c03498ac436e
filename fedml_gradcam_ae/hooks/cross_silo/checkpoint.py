"""Checkpoint of a server: a file that is always complete, however the process ends, and that cannot run code.

The file is in the safetensors format. It holds the tensors of the global model and of the defense's state. All other
state is JSON in the file's metadata, beside a SHA-256 digest of the whole file. The digest is computed with 64 zeros
in its own place.
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

FORMAT = "fedml_gradcam_ae server"  # Marks a file as a checkpoint of this server.
VERSION = 1  # Version of the file format; files of other versions are rejected.
NO_DIGEST = "0" * 64  # Stands in the digest's place while the digest is computed.
DIGEST_KEY = b'"sha256":"'  # The digest follows these bytes of the header.
LARGEST_HEADER = 100_000_000  # Maximum size of the header in bytes, which is safetensors' own limit.


@dataclass(frozen=True)
class Owner:
    """Description of the run that a checkpoint belongs to; a checkpoint of another run is rejected.

    Attributes:
        rounds: the number of rounds of the whole run.
        defense: the type of the defense and the settings that its state depends on; empty without a defense.
    """

    rounds: int
    defense: Mapping[str, Any]


@dataclass(frozen=True)
class Saved:
    """Content of a checkpoint.

    Attributes:
        rounds_done: the number of finished rounds.
        model: the state dict of the global model.
        defense: the defense's state, as `Defense.state` returned it.
    """

    rounds_done: int
    model: dict[str, Tensor]
    defense: dict[str, Any]


class Checkpoint:
    """Checkpoint file in a folder, replaced in one step.

    Args:
        folder: the folder; made if it does not exist.
        owner: the run that the checkpoint belongs to.
    """

    def __init__(self, folder: str | Path, owner: Owner) -> None:
        self.path = Path(folder) / "server.safetensors"
        self.partial = self.path.with_suffix(".partial")
        self.owner = owner

    def try_out(self, model: Mapping[str, Tensor], defense: Mapping[str, Any]) -> None:
        """Write a state and remove it again, so that a problem is found before the first round.

        Args:
            model: the state dict of the global model.
            defense: the defense's state.

        Raises:
            SettingsError: if the file cannot be written, or if the state holds values that a checkpoint cannot hold.
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
        """Write the state; the previous checkpoint stays until the new one is completely on disk.

        Args:
            rounds_done: the number of finished rounds.
            model: the state dict of the global model.
            defense: the defense's state.

        Raises:
            OSError: if the file cannot be written.
            TypeError: if the state holds values that a checkpoint cannot hold.
        """
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
        """Return the state that was saved last, or None if there is no checkpoint.

        Args:
            model: the network's own state dict, whose names, shapes and dtypes the saved model must have.

        Raises:
            SettingsError: if the file is incomplete, changed, not a checkpoint, of another version or of another run.
        """
        older = self.path.with_name("server.pt")
        if not os.path.lexists(self.path):
            if os.path.lexists(older):
                raise _wrong(older, "it is a checkpoint of version 0.1.0, which is not read any more", "finish with it")
            return None
        saved = self._read()
        if problem := _model_problem(saved.model, model):
            raise _wrong(
                self.path,
                f"its model is not that of this network: {problem}",
                "use the network that it was written with",
            )
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
            raise _wrong(self.path, "it is incomplete, or no checkpoint of this server") from None
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
                raise _wrong(self.path, "it is incomplete or was changed: its SHA-256 does not match")
            return self._take(json.loads(header["content"]), safetensors.torch.load(found))
        except SettingsError:
            raise
        except Exception as error:  # a valid digest does not prove valid content
            raise self.unusable(error) from None

    def _take(self, content: Any, tensors: Mapping[str, Tensor]) -> Saved:
        """Return the state in a file's content.

        Raises:
            SettingsError: if the state is of another run.
            Exception: of any type, if the content is not that of a checkpoint.
        """
        done, defense = content["rounds_done"], content["defense"]
        if type(done) is not int:
            raise _wrong(self.path, f"its number of rounds done is {shown(done)}, and should be a whole number")
        if not 0 <= done <= self.owner.rounds:
            raise _wrong(
                self.path,
                f"it is from after round {shown(done)}, and comm_round is {self.owner.rounds}",
                "use the comm_round that it was written with",
            )
        if problem := _defense_problem(defense, self.owner.defense):
            raise _wrong(self.path, f"it is of another defense: {problem}", "use that defense")
        model, state = put_together(content["model"], tensors), put_together(content["state"], tensors)
        if not isinstance(state, dict):
            raise _wrong(self.path, f"the state of its defense is {shown(state)}, and should be a dictionary")
        return Saved(done, model, state)

    def unusable(self, error: Exception) -> SettingsError:
        """Return the error to raise for a file that is complete and has wrong content.

        Args:
            error: the problem that was found.
        """
        what = f"it does not hold a server's state: {type(error).__name__}: {printable(str(error))}"
        return _wrong(self.path, what)


def _wrong(path: Path, what: str, instead: str | None = None) -> SettingsError:
    ways = [*([instead] if instead else []), "delete it", "start without resume"]
    where = printable(str(path), 4096)
    return SettingsError(f"The checkpoint {where} cannot be used: {what}. Either {' or '.join(ways)}.")


def _read_regular(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: if it cannot be read or is not a regular file. Reading a pipe would make the server wait forever.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(_regular(handle), "rb") as file:
        return file.read()


def _regular(handle: int) -> int:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle


def _header(found: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    size = int.from_bytes(found[:8], "little")
    if len(found) < 8 or size > min(len(found) - 8, LARGEST_HEADER):
        raise ValueError("no header")
    metadata: dict[str, str] = json.loads(found[8 : 8 + size]).get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("no metadata")
    return metadata


def _digest_place(found: bytes) -> int:
    """Return the position of the first of the digest's 64 digits."""
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
    """Return whether a state dict holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(t).all()) for t in model.values() if t.is_floating_point() or t.is_complex())


def _defense_problem(found: object, expected: Mapping[str, Any]) -> str | None:
    if _same(found, dict(expected)):
        return None
    if not isinstance(found, dict):
        return f"{shown(found)} is found in place of its type and settings"
    if found.get("type") != expected.get("type"):
        return f"{_kind(found)}, and here it is {_kind(expected)}"
    before, now = found.get("settings") or {}, expected.get("settings") or {}
    if not isinstance(before, dict):
        return f"its settings are {shown(before)}, and should be a dictionary"
    names = [name for name in sorted({*before, *now}) if not _same(before.get(name), now.get(name))]
    if not names:
        return "its description has another form than this version's"
    return "; ".join(
        f"{printable(name, 60)} was {_setting(before.get(name))}, and is {_setting(now.get(name))}"
        for name in names[:5]
    )


def _same(a: object, b: object) -> bool:
    """Return whether two values are equal in JSON, where true is not 1."""
    return a == b and json.dumps(_booleans(a), sort_keys=True) == json.dumps(_booleans(b), sort_keys=True)


def _booleans(value: object) -> object:
    """Return a value with all leaves except booleans replaced by None."""
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
    """Flush a folder's entries to disk, on POSIX systems."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
