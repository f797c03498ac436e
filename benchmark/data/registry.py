"""The registry of data sets: the function that each `data: {name: ...}` refers to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedml_gradcam_ae.contract.registry import import_all, origin


class Wanted(Protocol):
    """The settings that a data set's function gets; `benchmark.data.settings.Data` has all of them."""

    @property
    def name(self) -> str:
        """Return the name of the data set."""

    @property
    def root(self) -> str | None:
        """Return the folder of the data set; None: the default."""

    @property
    def download(self) -> bool:
        """Return whether to download what is missing."""

    @property
    def size(self) -> int:
        """Return the height and width of images in pixels."""


@dataclass(frozen=True)
class Split:
    """The training or the test images of a data set; pixels are read on demand.

    Attributes:
        labels: (images,), int64.
        read: a function from positions to pixels, (positions, channels, height, width), uint8, or float32 in [0, 1].
    """

    labels: Tensor
    read: Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class Source:
    """A data set that was opened.

    Attributes:
        train: its training images.
        test: its test images.
        classes: the name of each class; a label is a position in this list.
        mean: subtracted from each channel of images in [0, 1].
        std: the divisor of each channel after that.
    """

    train: Split
    test: Split
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]


Open = Callable[[Wanted], Source]


@dataclass(frozen=True)
class Entry:
    """A registered data set.

    Attributes:
        open: the function that opens it.
        keys: which of the keys `root` and `download` it uses.
    """

    open: Open
    keys: tuple[str, ...]


_entries: dict[str, Entry] = {}


def register_data(name: str, keys: tuple[str, ...] = ()) -> Callable[[Open], Open]:
    """Register a function as the data set `data: {name: NAME}` of benchmark configurations.

    The function takes the settings under `data`, looks for the data set and returns a `Source`. Its imports belong
    inside it, so that mistakes in a configuration are reported without delay.

    Args:
        name: the name in the configuration.
        keys: which of the keys `root` and `download` it uses.

    Returns:
        A decorator that registers the function and returns it unchanged.

    Raises:
        ValueError: if the name belongs to another function.
    """

    def register(function: Open) -> Open:
        holder = _entries.get(name)
        # A reloaded module (in a notebook or a test) registers the same function again.
        if holder is not None and origin(holder.open) != origin(function):
            raise ValueError(f"The data set {name!r} is taken by {origin(holder.open)}: choose another name.")
        _entries[name] = Entry(function, keys)
        return function

    return register


def data_sets() -> dict[str, Entry]:
    """Return all registered data sets by name.

    All modules of `benchmark.data.sets` are imported, so that a new file there needs no other mention.
    """
    import_all("benchmark.data.sets")
    return dict(_entries)
