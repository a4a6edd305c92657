"""Which people are followed where there are more than places: those who matter, and for long.

A person matters more the larger, the nearer to the picture's middle, and the longer followed. A new
person takes the place of a followed one only where it matters clearly more and is no smaller, so
that places do not change hands from window to window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.perception.blazepose.roi import Roi

_BORDER = 0.6
"""How much a person in a corner of the picture matters, against one in the middle."""
_ADVANTAGE = 1.3
"""A new person must matter more than a followed one by this factor."""
_SETTLED_FRAMES = 60
"""Frames after which a followed person has the whole of a second such advantage."""


def importance(roi: Roi, size: tuple[int, int]) -> float:
    """Return how much a person matters: the ROI's side in pixels, less towards the borders.

    Args:
        roi: Where the person is.
        size: (H, W) of the picture.
    """
    height, width = size
    off = math.hypot(2 * roi.x / width - 1, 2 * roi.y / height - 1) / math.sqrt(2)
    return roi.side * (1 - (1 - _BORDER) * min(off, 1.0))


def worth_checking(
    candidates: Sequence[Roi],
    tracked: Sequence[Roi],
    places: int,
    spare: int,
    size: tuple[int, int],
) -> list[Roi]:
    """Return the candidates that could get a place, the most important first.

    Args:
        candidates: ROIs of detections that are not tracked.
        tracked: The people that have a place.
        places: How many places there are.
        spare: How many to return beyond the free places, since some turn out not to be people.
        size: (H, W) of the picture.
    """
    free = max(places - len(tracked), 0)
    able = [r for r in candidates if free or any(_displaces(r, old, size) for old in tracked)]
    return sorted(able, key=lambda roi: -importance(roi, size))[: free + spare]


def fill_places(
    tracked: Sequence[Roi], new: Sequence[Roi], places: int, size: tuple[int, int]
) -> tuple[Roi, ...]:
    """Return the people that get a place, those who had one first.

    Args:
        tracked: The people that have a place.
        new: New people.
        places: How many places there are.
        size: (H, W) of the picture.
    """
    kept = sorted(tracked, key=lambda roi: -_hold(roi, size))[:places]
    entering: list[Roi] = []
    for roi in sorted(new, key=lambda roi: -importance(roi, size)):
        if len(kept) + len(entering) < places:
            entering.append(roi)
        elif kept and _displaces(roi, kept[-1], size):
            kept.pop()
            entering.append(roi)
    # In the order in which they came: the longest followed first.
    ids = {roi.id for roi in (*kept, *entering)}
    return tuple(roi for roi in (*tracked, *new) if roi.id in ids)


def _hold(roi: Roi, size: tuple[int, int]) -> float:
    """How firmly a followed person holds its place."""
    settled = min(roi.age / _SETTLED_FRAMES, 1.0)
    return importance(roi, size) * (1 + (_ADVANTAGE - 1) * settled)


def _displaces(new: Roi, old: Roi, size: tuple[int, int]) -> bool:
    """Whether a new person takes the place of a followed one."""
    return new.side >= old.side and importance(new, size) > _ADVANTAGE * _hold(old, size)
