"""The tokens of a vision transformer as feature maps.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1: the image is cut into patches, each
becomes a token, and a class token may stand in front of them.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_EXTRA = 8  # tokens in front of the patches: a class token, a distillation token, registers


class Grid(NamedTuple):
    """The places of tokens in the image.

    Attributes:
        extra: the number of tokens in front that are no patches.
        height: the number of rows of patches.
        width: the number of patches in a row.
    """

    extra: int
    height: int
    width: int


def token_grid(tokens: int, height: int, width: int) -> Grid | None:
    """Return how so many tokens cover an image, with the fewest extra tokens; None: they cannot.

    Args:
        tokens: their number.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Example:
        >>> token_grid(65, height=32, width=32)
        Grid(extra=1, height=8, width=8)
        >>> token_grid(32, height=32, width=64)
        Grid(extra=0, height=4, width=8)
        >>> token_grid(32, height=32, width=31) is None
        True
    """
    for extra in range(min(MOST_EXTRA + 1, tokens)):
        patches = tokens - extra
        rows = round((patches * height / width) ** 0.5)
        if rows and patches > extra and patches % rows == 0 and rows * width == patches // rows * height:
            return Grid(extra, rows, patches // rows)
    return None
