"""The kinds of evidence of the `robust` profile, each with the reason that a report gives for it."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """One kind of evidence: its name, which is the member itself, and the reason in words.

    Example:
        >>> Kind.COPIES == "copies", Kind.COPIES.reason
        (True, "its heat maps are nearly another client's")
    """

    reason: str

    COPIES = "copies", "its heat maps are nearly another client's"
    MEANS = "means", "the means that its layers produce are nearly another client's"
    ERRORS = "errors", "an autoencoder trained on other clients' heat maps does not know its own"
    STATISTICS = "statistics", "the means that its BatchNorm layers hold did not move with its weights"
    DISAGREEMENT = "disagreement", "its heat maps changed against everybody's direction"
    OUTPUTS = "outputs", "its outputs on the server's test images are far from what others' are"

    def __new__(cls, name: str, reason: str) -> Kind:
        """Make a member that is its name, as text."""
        member = str.__new__(cls, name)
        member._value_, member.reason = name, reason
        return member
