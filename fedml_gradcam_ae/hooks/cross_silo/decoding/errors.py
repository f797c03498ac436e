"""What the decoder says of bytes that it does not decode."""

from __future__ import annotations

from typing import Literal, get_args

from typing_extensions import override

from fedml_gradcam_ae.contract.shown import printable

Kind = Literal[
    "names code",
    "too large",
    "too many objects",
    "too deep",
    "too slow",
    "broken",
    "unsupported",
    "bad tensor",
    "bad array",
]
KINDS: tuple[str, ...] = get_args(Kind)
LONGEST = 300


class Undecodable(ValueError):  # noqa: N818 - it is said of bytes
    """Bytes that are no plain data, or more of it than the budget allows.

    Args:
        kind: one of `KINDS`, to count and report by.
        reason: what was found; may quote the sender.

    Attributes:
        kind: as given.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(printable(f"{kind}: {reason}", LONGEST))
        self.kind: Kind = kind

    @override
    def __reduce__(self) -> tuple[type[Undecodable], tuple[str, str]]:
        return Undecodable, (self.kind, str(self).removeprefix(f"{self.kind}: "))
