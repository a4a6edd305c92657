"""How much likelier it is that two sightings are one person's than that they are two people's.

Each clue gives the natural logarithm of a ratio of likelihoods, so clues are added. Positive ones
speak for one person.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.tracking.appearance import Appearance, difference

_STANDS, _WALKS, _REENTERS = 0.4, 0.4, 0.2
"""Shares of people who are found again where they were, on their way, and anywhere."""
_PLACE = 0.15
"""Standard deviation of the place of a person who stands, in parts of the person's size ..."""
_STAND_SPEED, _WALK_SPEED = 0.05, 0.7
"""... and how much a second adds to it."""
_SIZE, _SIZE_SPEED, _SIZES = 0.15, 0.08, 0.6
"""Standard deviation of the logarithm of one person's size in the image, what a second adds to it,
and that of several people's."""
_CUT_SHORT = 0.2
"""Share of sightings whose size says nothing, since the picture's edge cuts the person."""
_LOOK = (6.0, np.array([-5.0, -9.0, -6.0]))
"""Logistic regression of one person against two on the distances of brightness, red and blue."""
_MOST_LOOK, _LEAST_LOOK = 4.5, -8.0
"""Limits of what an appearance says: others wear the same, and light can change."""


def of_place(distance: float, elapsed_s: float, area: float) -> float:
    """Return what the place of two sightings says.

    Args:
        distance: From one to the other, in parts of the person's size.
        elapsed_s: The time between them, in seconds.
        area: Of the picture, in squares of the person's size.
    """
    near = sum(
        share * math.exp(-0.5 * (distance / spread) ** 2) / (2 * math.pi * spread**2)
        for share, spread in (
            (_STANDS, _PLACE + _STAND_SPEED * elapsed_s),
            (_WALKS, _PLACE + _WALK_SPEED * elapsed_s),
        )
    )
    # Other people are found anywhere in the picture.
    return math.log(near * max(area, 1.0) + _REENTERS)


def of_size(ratio: float, elapsed_s: float) -> float:
    """Return what the ratio of two sizes in the image says."""
    one = min(_SIZE + _SIZE_SPEED * elapsed_s, _SIZES)
    square = math.log(ratio) ** 2
    usual = _SIZES / one * math.exp(-0.5 * square * (1 / one**2 - 1 / _SIZES**2))
    return math.log((1 - _CUT_SHORT) * usual + _CUT_SHORT)


def of_appearance(one: Appearance | None, other: Appearance | None) -> float:
    """Return what two appearances say; 0 where one of them is unknown."""
    if one is None or other is None:
        return 0.0
    distances, seen = difference(one, other)
    constant, slopes = _LOOK
    value = min(max(constant + float(slopes @ distances), _LEAST_LOOK), _MOST_LOOK)
    # The less both saw of the person, the less it says.
    return value * min(seen / 2.0, 1.0)
