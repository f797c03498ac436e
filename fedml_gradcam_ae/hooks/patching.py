"""Replacing attributes in a way that can be undone exactly."""

from __future__ import annotations

from typing import Any, NamedTuple


class Replacement(NamedTuple):
    """One attribute that was replaced.

    Attributes:
        owner: the module or class that holds it.
        name: of the attribute.
        original: what it was, as it is stored.
        mends: what is wrong in FedML without the replacement.
    """

    owner: Any
    name: str
    original: Any
    mends: str

    @property
    def path(self) -> str:
        """The attribute's dotted name, from FedML's top."""
        module = f"{self.owner.__module__}." if isinstance(self.owner, type) else ""
        return f"{module}{self.owner.__name__}.{self.name}"


class Patches:
    """A list of replaced attributes; also a context manager that undoes them at the end."""

    def __init__(self) -> None:
        self.replaced: list[Replacement] = []

    def replace(self, owner: Any, name: str, value: Any, mends: str) -> Any:
        """Put `value` in the place of an attribute that `owner` itself holds.

        Args:
            owner: a module or a class.
            name: the attribute.
            value: what to put there.
            mends: one line for the reader of the code: what is wrong without this patch.

        Returns:
            The attribute as it is stored, so that a staticmethod is put back as one.
        """
        original = vars(owner)[name]
        self.replaced.append(Replacement(owner, name, original, mends))
        setattr(owner, name, value)
        return original

    def undo(self) -> None:
        """Put everything back, the last replacement first."""
        while self.replaced:
            last = self.replaced.pop()
            setattr(last.owner, last.name, last.original)

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_error: object) -> None:
        self.undo()
