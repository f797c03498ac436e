"""Short texts for values from an untrusted sender, safe to print: none of the sender's code runs."""

from __future__ import annotations

_LONGEST = 60  # characters of a text or of a type's name that are shown
_NAME = type.__dict__["__name__"]  # reads a type's name even if its metaclass hides it


def kind(value: object) -> str:
    """Return the name of a value's type, whatever the value claims to be.

    Args:
        value: anything.

    Example:
        >>> kind([1, 2])
        'list'
    """
    return printable(_NAME.__get__(type(value)), _LONGEST)


def shown(value: object) -> str:
    """Return numbers and text as Python writes them, in one line of bounded length; of other values only the type.

    Args:
        value: anything.

    Example:
        >>> shown(7), shown(10**400), shown([[[]]])
        ('7', 'a whole number of 1329 bits', 'a list')
    """
    cls = type(value)
    if cls is int and isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if cls is str and isinstance(value, str):
        return repr(printable(value, _LONGEST))
    if any(cls is plain for plain in (bool, int, float, complex)) or value is None:
        return repr(value)
    return f"a {kind(value)}"


def printable(text: str, longest: int = 200) -> str:
    r"""Return a text that fits into one line of a log.

    Args:
        text: anything, of any length.
        longest: the most characters that are kept.

    Returns:
        The text with line breaks, terminal codes and other invisible characters written as escapes.

    Example:
        >>> printable("two\nlines and \x1b[31mred")
        'two\\nlines and \\x1b[31mred'
        >>> printable("0123456789", longest=5)
        '0123…'
    """
    kept = str.__getitem__(text, slice(longest + 1))
    escaped = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in kept)
    return escaped if len(escaped) <= longest else escaped[: longest - 1] + "…"
