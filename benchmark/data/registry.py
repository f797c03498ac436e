"""Which function answers to which `data: {name: ...}`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedml_gradcam_ae.contract.registry import import_all, origin


class Wanted(Protocol):
    """What a data set is told of the settings; benchmark.data.settings has the whole."""

    @property
    def name(self) -> str:
        """The name of the data set."""

    @property
    def root(self) -> str | None:
        """Folder of the data set; None: the default."""

    @property
    def download(self) -> bool:
        """Whether to fetch what is missing."""

    @property
    def size(self) -> int:
        """Height and width in pixels."""


@dataclass(frozen=True)
class Split:
    """The training or the test images of a data set, before they are read.

    Attributes:
        labels: (images,), int64.
        read: from positions to pixels, (positions, channels, height, width): uint8, or float32 in [0, 1].
    """

    labels: Tensor
    read: Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class Source:
    """A data set that was found.

    Attributes:
        train: its training images.
        test: its test images.
        classes: the name of each class; a label is a position in it.
        mean: subtracted from each channel of images in [0, 1].
        std: what each channel is divided by afterward.
    """

    train: Split
    test: Split
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]


Open = Callable[[Wanted], Source]


@dataclass(frozen=True)
class Entry:
    """A registered data set: how it is opened, and which of the keys `root` and `download` it takes."""

    open: Open
    keys: tuple[str, ...]


_entries: dict[str, Entry] = {}


def register_data(name: str, keys: tuple[str, ...] = ()) -> Callable[[Open], Open]:
    """Function decorator: `data: {name: NAME}` in a benchmark configuration now means this function.

    It takes the settings under `data:`, looks for the data set and returns a `Source`. It imports what it needs
    inside, so that a mistake in a configuration is answered at once.

    Args:
        name: the name in the configuration.
        keys: which of `root` and `download` have a meaning for it.

    Raises:
        ValueError: if another function has that name already.
    """

    def register(function: Open) -> Open:
        holder = _entries.get(name)
        # A module that is reloaded (a notebook, a test) may bring the same function again.
        if holder is not None and origin(holder.open) != origin(function):
            raise ValueError(f"The data set {name!r} is taken by {origin(holder.open)}: choose another name.")
        _entries[name] = Entry(function, keys)
        return function

    return register


def data_sets() -> dict[str, Entry]:
    """Every registered data set by name; a new file under `sets` needs no other mention."""
    import_all("benchmark.data.sets")
    return dict(_entries)
