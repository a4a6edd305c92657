"""Areas of the picture that people are looked for in, or not: posters, mirrors and screens."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", re.ASCII)
_FORM = "X,Y,W,H in pixels, such as 0,0,640,720, or in parts of the picture, such as 0,0,0.5,1"


@dataclass(frozen=True)
class Area:
    """An upright rectangle of a picture.

    Numbers that are all at most 1 are parts of the picture's width and height, others are pixels.

    Attributes:
        x: The left edge.
        y: The upper edge.
        width: How far it reaches to the right; the right edge itself is outside.
        height: How far it reaches down; the lower edge itself is outside.

    Raises:
        ValueError: A number is negative or not finite, a side is 0, or pixels and parts are mixed.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        numbers = (self.x, self.y, self.width, self.height)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"numbers from 0 on, not {_shown(numbers)}")
        if not self.width or not self.height:
            raise ValueError(f"a width and a height above 0, not {_shown(numbers)}")
        # A picture of which less than a pixel is meant: "0,0,640,0.5" mixes the two.
        if not self.in_parts and min(self.width, self.height) < 1:
            raise ValueError(f"all four in pixels, or all four at most 1, not {_shown(numbers)}")

    @property
    def in_parts(self) -> bool:
        """Whether the numbers are parts of the picture, not pixels."""
        return max(self.x, self.y, self.width, self.height) <= 1

    def contains(self, x: float, y: float, size: tuple[int, int]) -> bool:
        """Return whether a point of a picture is inside.

        Args:
            x: Pixels to the right; pixel centres are at whole numbers.
            y: Pixels down.
            size: The picture's (height, width) in pixels.
        """
        height, width = size
        # Edges lie between pixels: the left edge of the first pixel is 0, its centre 0.5.
        across, down = x + 0.5, y + 0.5
        if self.in_parts:
            across, down = across / width, down / height
        return self.x <= across < self.x + self.width and self.y <= down < self.y + self.height


def _shown(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def parse_area(text: str) -> Area:
    """Return the area of ``X,Y,W,H``. Raises ValueError, with what it should be, for other text."""
    words = [word.strip() for word in text.split(",")]
    if len(words) != 4 or not all(_NUMBER.fullmatch(word) for word in words):
        raise ValueError(f"{_FORM}, not {text!r}")
    return Area(*(float(word) for word in words))


@dataclass(frozen=True)
class Areas:
    """Where people are detected and followed.

    Attributes:
        regions: People are kept inside any of these only; none: in the whole picture.
        ignored: People inside any of these are left out, also within a region.
    """

    regions: tuple[Area, ...] = ()
    ignored: tuple[Area, ...] = ()

    def keeps(self, x: float, y: float, size: tuple[int, int]) -> bool:
        """Return whether a person is detected and followed.

        Args:
            x: The middle of the person's hips, pixels to the right; pixel centres are at whole
                numbers. Hips outside of the picture count as at its nearest edge, so that a
                person who sits close to the camera is inside "0,0,1,1".
            y: The same, pixels down.
            size: The picture's (height, width) in pixels.
        """
        if not self.regions and not self.ignored:
            return True
        height, width = size
        x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
        if any(area.contains(x, y, size) for area in self.ignored):
            return False
        return not self.regions or any(area.contains(x, y, size) for area in self.regions)

    def reaches(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
        """Return whether a part of a picture shares some pixels with a region.

        Args:
            box: The part's x, y, width and height in pixels.
            size: The picture's (height, width) in pixels.
        """
        x, y, width, height = box
        for area in self.regions:
            scale_x, scale_y = (size[1], size[0]) if area.in_parts else (1, 1)
            left, top = area.x * scale_x, area.y * scale_y
            right, bottom = left + area.width * scale_x, top + area.height * scale_y
            if left < x + width and x < right and top < y + height and y < bottom:
                return True
        return not self.regions


EVERYWHERE = Areas()
"""The whole picture."""
