"""What a stranger sent, in a few words that are safe to print: nothing of it is run, and nothing of it is long."""

from __future__ import annotations

_LONGEST = 60  # characters
_NAME = type.__dict__["__name__"]


def kind(value: object) -> str:
    """The name of a value's type, whatever the value says of itself.

    >>> kind([1, 2])
    'list'
    """
    return shortened(_NAME.__get__(type(value)))


def shown(value: object) -> str:
    """Numbers and text as Python writes them, in one line of bounded length; of anything else its type.

    >>> shown(7), shown(10**400), shown([[[]]])
    ('7', 'a whole number of 1329 bits', 'a list')
    """
    cls = type(value)
    if cls is int and isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if cls is str and isinstance(value, str):
        return repr(shortened(value))
    if cls in (bool, int, float, complex) or value is None:
        return repr(value)
    return f"a {kind(value)}"


def shortened(text: str) -> str:
    """The beginning of a text, with three dots where there is more."""
    text = str.__str__(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
