"""The registry of networks: the function that each `model: {name: ...}` refers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fedml_gradcam_ae.contract.registry import import_all, origin

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Entry:
    """A registered network.

    Attributes:
        build: the function that builds it.
        channels_last: the default of the key `channels_last`: whether channels are innermost in memory.
        weights: the names of the pretrained weights that it can start from.
    """

    build: Build
    channels_last: bool
    weights: tuple[str, ...]


_entries: dict[str, Entry] = {}


def register_model(name: str, channels_last: bool = False, weights: tuple[str, ...] = ()) -> Callable[[Build], Build]:
    """Register a function as the network `model: {name: NAME}` of benchmark configurations.

    The function is called with `classes`, `channels` and `size` (height and width in pixels) of the images, and with
    `weights` if the configuration names some. It returns a new network. Its imports belong inside it, so that mistakes
    in a configuration are reported without delay.

    Args:
        name: the name in the configuration.
        channels_last: the default of the key `channels_last`.
        weights: the names of the pretrained weights that it can start from.

    Returns:
        A decorator that registers the function and returns it unchanged.

    Raises:
        ValueError: if the name belongs to another function.
    """

    def register(function: Build) -> Build:
        holder = _entries.get(name)
        # A reloaded module (in a notebook or a test) registers the same function again.
        if holder is not None and origin(holder.build) != origin(function):
            raise ValueError(f"The model {name!r} is taken by {origin(holder.build)}: choose another name.")
        _entries[name] = Entry(function, channels_last, weights)
        return function

    return register


def networks() -> dict[str, Entry]:
    """Return all registered networks by name.

    All modules of `benchmark.models.networks` are imported, so that a new file there needs no other mention.
    """
    import_all("benchmark.models.networks")
    return dict(_entries)
