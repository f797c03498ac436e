"""Replacing attributes in a way that can be undone exactly."""

from __future__ import annotations

from typing import Any


class Patches:
    """A list of replaced attributes; also a context manager that undoes them at the end."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

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
        assert mends, "every patch says what it mends"
        original = vars(owner)[name]
        self._replaced.append((owner, name, original))
        setattr(owner, name, value)
        return original

    def undo(self) -> None:
        """Put everything back, the last replacement first."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            setattr(owner, name, original)

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_error: object) -> None:
        self.undo()
