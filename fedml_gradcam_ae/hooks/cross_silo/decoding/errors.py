"""The error for bytes that the decoder rejects."""

from __future__ import annotations

from typing import Literal, get_args

from typing_extensions import override

from fedml_gradcam_ae.contract.shown import printable

# The kinds of errors, by which they are counted and reported.
Kind = Literal[
    "names code",
    "too large",
    "too many objects",
    "too deep",
    "too slow",
    "no object",
    "broken",
    "unsupported",
    "bad tensor",
    "bad array",
]
KINDS: tuple[str, ...] = get_args(Kind)
LONGEST = 300  # Maximum length of an error's text in characters.


class Undecodable(ValueError):  # noqa: N818 - it is said of bytes
    """Error for bytes that are not plain data, or are more data than the budget allows.

    Args:
        kind: one of `KINDS`, used to count and report errors.
        reason: what was found; may quote the sender's bytes, made printable.

    Attributes:
        kind: the kind of the error.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(printable(f"{kind}: {reason}", LONGEST))
        self.kind: Kind = kind

    @override
    def __reduce__(self) -> tuple[type[Undecodable], tuple[str, str]]:
        return Undecodable, (self.kind, str(self).removeprefix(f"{self.kind}: "))
