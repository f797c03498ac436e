"""Which function answers to which `model: {name: ...}`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fedml_gradcam_ae.contract.registry import import_all, origin

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Entry:
    """A registered network: how it is built, how its weights lie in memory by default, and which it can start from."""

    build: Build
    channels_last: bool
    weights: tuple[str, ...]


_entries: dict[str, Entry] = {}


def register_model(name: str, channels_last: bool = False, weights: tuple[str, ...] = ()) -> Callable[[Build], Build]:
    """Function decorator: `model: {name: NAME}` in a benchmark configuration now means this function.

    It is called with `classes`, `channels` and `size` (height and width in pixels) of the images, and with `weights`
    where the configuration names some; it returns a new network. It imports what it needs inside, so that a mistake
    in a configuration is answered at once.

    Args:
        name: the name in the configuration.
        channels_last: the default of the key `channels_last`.
        weights: the names of the pretrained weights that it can start from.

    Raises:
        ValueError: if another function has that name already.
    """

    def register(function: Build) -> Build:
        holder = _entries.get(name)
        # A module that is reloaded (a notebook, a test) may bring the same function again.
        if holder is not None and origin(holder.build) != origin(function):
            raise ValueError(f"The model {name!r} is taken by {origin(holder.build)}: choose another name.")
        _entries[name] = Entry(function, channels_last, weights)
        return function

    return register


def networks() -> dict[str, Entry]:
    """Every registered network by name; a new file under `networks` needs no other mention."""
    import_all("benchmark.models.networks")
    return dict(_entries)
