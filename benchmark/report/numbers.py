"""Numbers in HTML: with the interval, and with the runs that they come from as tooltip."""

from __future__ import annotations

import math

from benchmark.measures.intervals import Estimate
from benchmark.report.markup import Html, tag

LOW, HIGH = (249, 196, 148), (141, 190, 226)  # orange and blue: distinct for the color-blind, pale under dark text
# Shown in place of a missing number.
UNDEFINED = "\N{EN DASH}"


def number(found: Estimate | None, digits: int = 3, signed: bool = False, interval: bool = True) -> Html:
    """Return a mean as HTML, with the 95 % interval where there is one.

    Args:
        found: the mean; None shows a dash.
        digits: after the point.
        signed: whether to show a plus sign.
        interval: whether to show the interval.
    """
    if found is None:
        return tag("span", UNDEFINED, class_="none", title="not measured, or not defined")
    sign = "+" if signed else ""
    between = (
        tag("small", f" [{_plain(found.low, digits, sign)}, {_plain(found.high, digits, sign)}]")
        if interval and found.low is not None and found.high is not None
        else None
    )
    return tag("span", _plain(found.mean, digits, sign), between, class_="n", title=source(found))


def seconds(found: Estimate | None, interval: bool = True) -> Html:
    """Return a time (s) with two significant digits, since times of rules differ by orders of magnitude.

    Args:
        found: the mean; None shows a dash.
        interval: whether to show the interval.
    """
    return number(found, 0 if found is None else decimals(found.mean), interval=interval)


def decimals(value: float) -> int:
    """Return the number of decimals that shows two significant digits, at most 6.

    Args:
        value: not negative.

    Example:
        >>> [decimals(value) for value in (0.0123, 1.23, 123.0)]
        [3, 1, 0]
    """
    return min(6, max(0, 1 - math.floor(math.log10(value)))) if value > 0 else 1


def source(found: Estimate) -> str:
    """Return the tooltip of a number: the number of seeds and the runs that it comes from.

    Args:
        found: the mean.
    """
    return f"{found.seeds} seed{'s' * (found.seeds != 1)}; runs: {', '.join(found.runs)}"


def shade(value: float | None, low: float = 0.0, high: float = 1.0) -> str | None:
    """Return the background style of a value: orange at `low` or below, white in the middle, blue at `high` or above.

    Args:
        value: to be shown; None has no style.
        low: the bad end of the scale; it may be above `high`.
        high: the good end of the scale.
    """
    if value is None:
        return None
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    end, strength = (HIGH, 2 * share - 1) if share > 0.5 else (LOW, 1 - 2 * share)
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in end)
    return f"background:#{red:02x}{green:02x}{blue:02x}"


def cell(found: Estimate | None, *, low: float = 0.0, high: float = 1.0, digits: int = 3, signed: bool = False) -> Html:
    """Return a shaded table cell.

    Args:
        found: the mean; None shows a dash.
        low: the bad end of the color scale; it may be above `high`.
        high: the good end of the color scale.
        digits: after the point.
        signed: whether to show a plus sign.
    """
    return tag("td", number(found, digits, signed), style=shade(None if found is None else found.mean, low, high))


def _plain(value: float, digits: int, sign: str) -> str:
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else f"{0:.{digits}f}"
