"""The size of pictures whose pixels are not square. Imports nothing heavy."""

from __future__ import annotations

from fractions import Fraction


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) at which pixels of ``aspect`` (width / height) become square.

    The shorter side is stretched, so no detail is lost. Unknown or implausible aspects count as 1.
    """
    if not aspect or not Fraction(1, 4) <= aspect <= 4:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)
