"""The register of hostile uploads, claims and messages: what each is, and what must happen to it.

A case is one small function in uploads.py, claims.py or messages.py: its name names the case, its docstring says what
it is (and stands in docs/cross-silo.md), its decorator says what must happen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

# left out  the upload is unusable: the aggregate is what it is without that client, and the report says why
# ignored   the message is dropped and reported; the client's upload is still to come
# taken     the aggregate is what it is if the client sends the honest upload that the case stands for
# bounded   a usable upload that poisons: a defense keeps the aggregate near what it is without that client
Outcome = Literal["left out", "ignored", "taken", "bounded"]
Group = Literal["upload", "claim", "message"]
Build = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One hostile upload, claim or message.

    Attributes:
        name: the function's name, in words.
        group: what `build` makes, and from what: see uploads.py, claims.py, messages.py.
        heading: what it is an example of.
        what: a phrase for the documentation.
        outcomes: what may happen; where there are several, each is right.
        report: a regular expression for the reason in the report; None where none is demanded.
        build: makes it; cheap, deterministic, and harmless to the process that calls it.
        stands_for: claims that are taken: the number of samples that it may count for at most.
        undecodable: messages: the bytes themselves are refused, whatever the message says.
        on_the_wire: whether it can be sent, or exists in a simulation only.
    """

    name: str
    group: Group
    heading: str
    what: str
    outcomes: tuple[Outcome, ...]
    report: str | None
    build: Build
    stands_for: float | None = None
    undecodable: bool = False
    on_the_wire: bool = True

    @property
    def may_be_taken(self) -> bool:
        return "taken" in self.outcomes


_cases: dict[str, Case] = {}
_heading: list[str] = []


def heading(text: str) -> None:
    """Begin a paragraph of cases: those that follow are examples of this."""
    _heading[:] = [text]


def case(group: Group, *outcomes: Outcome, report: str | None = None, **more: Any) -> Callable[[Build], Build]:
    """Register a function as a case."""

    def register(build: Build) -> Build:
        name = build.__name__.replace("_", " ")
        if name in _cases or not build.__doc__:
            raise ValueError(f"a case needs a name of its own and a docstring: {name}")
        _cases[name] = Case(name, group, _heading[0], build.__doc__.strip(), outcomes, report, build, **more)
        return build

    return register


def cases(*groups: Group) -> list[Case]:
    """The cases of these groups, of all without any, in the order in which they are written."""
    from hostile import claims, messages, uploads  # noqa: F401  (importing them registers their cases)

    return [case for case in _cases.values() if not groups or case.group in groups]
