"""How a number is shown: with its interval, and with the runs that it comes from as its title."""

from __future__ import annotations

import math

from benchmark.measures.intervals import Estimate
from benchmark.report.markup import Html, tag

LOW, HIGH = (249, 196, 148), (141, 190, 226)  # orange and blue tints: told apart by the color-blind, dark text on both
UNDEFINED = "\N{EN DASH}"


def number(found: Estimate | None, digits: int = 3, signed: bool = False, interval: bool = True) -> Html:
    """Mean, and 95 % interval where there is one."""
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
    """A time (s) with two digits that matter: rules differ by orders of magnitude."""
    return number(found, 0 if found is None else decimals(found.mean), interval=interval)


def decimals(value: float) -> int:
    """After the point, for two digits that matter."""
    return min(6, max(0, 1 - math.floor(math.log10(value)))) if value > 0 else 1


def source(found: Estimate) -> str:
    """Where a number comes from, for its title."""
    return f"{found.seeds} seed{'s' * (found.seeds != 1)}; runs: {', '.join(found.runs)}"


def shade(value: float | None, low: float = 0.0, high: float = 1.0) -> str | None:
    """A style: orange at `low` or below, white in the middle, blue at `high` or above."""
    if value is None:
        return None
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    end, strength = (HIGH, 2 * share - 1) if share > 0.5 else (LOW, 1 - 2 * share)
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in end)
    return f"background:#{red:02x}{green:02x}{blue:02x}"


def cell(found: Estimate | None, *, low: float = 0.0, high: float = 1.0, digits: int = 3, signed: bool = False) -> Html:
    """A shaded cell of a table."""
    return tag("td", number(found, digits, signed), style=shade(None if found is None else found.mean, low, high))


def _plain(value: float, digits: int, sign: str) -> str:
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else f"{0:.{digits}f}"
