"""Replacement of attributes that can be undone exactly."""

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
    """List of replaced attributes; as a context manager it restores them at the end.

    Example:
        >>> class Greeter:
        ...     word = "hello"
        >>> with Patches() as patches:
        ...     original = patches.replace(Greeter, "word", "hi", mends="the greeting is too long")
        ...     Greeter.word
        'hi'
        >>> Greeter.word
        'hello'
    """

    def __init__(self) -> None:
        self.replaced: list[Replacement] = []

    def replace(self, owner: Any, name: str, value: Any, mends: str) -> Any:
        """Replace an attribute that `owner` itself holds.

        Args:
            owner: a module or a class.
            name: the name of the attribute.
            value: the new value.
            mends: one line that names the defect in FedML; docs/fedml.md shows it.

        Returns:
            The original attribute as `owner.__dict__` stores it: a staticmethod stays a staticmethod object.

        Raises:
            KeyError: if `owner` itself does not hold the attribute.
        """
        original = vars(owner)[name]
        self.replaced.append(Replacement(owner, name, original, mends))
        setattr(owner, name, value)
        return original

    def undo(self) -> None:
        """Restore all attributes, the last replacement first."""
        while self.replaced:
            last = self.replaced.pop()
            setattr(last.owner, last.name, last.original)

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_error: object) -> None:
        self.undo()
