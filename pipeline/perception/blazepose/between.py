"""People in the frames between two that were queried, where they hardly moved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose.overlap import size_px
from pipeline.perception.blazepose.queries import PersonRoi

_STILL = 0.04
"""A person hardly moved if no landmark is further away in the last frame than this, in parts of the
person's size: a hand that turns round between moved by an eighth of its acceleration
times the square of the time."""


def hardly_moved(first: Person, last: Person) -> bool:
    """Return whether all landmarks of a person are about where they were in an earlier frame."""
    moved = np.linalg.norm(last.landmarks_px - first.landmarks_px, axis=1).max()
    return float(moved) < _STILL * size_px(last)


def between(first: PersonRoi, last: PersonRoi, share: float) -> PersonRoi:
    """Return a person, and the next ROI, at a time between two answers.

    All moves in a straight line. The mask is that of the nearer answer, moved along.

    Args:
        first: The earlier answer.
        last: The later answer.
        share: The time from the earlier to this one, as a share of the time from the earlier to
            the later.
    """
    (a, a_roi), (b, b_roi) = first, last

    def mixed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(x + share * (y - x), np.float32)

    nearer = a if share < 0.5 else b
    points = mixed(a.landmarks_px, b.landmarks_px)
    person = replace(
        nearer,
        box_px=mixed(a.box_px, b.box_px),
        score=min(a.score, b.score),
        landmarks_px=points,
        visibility=mixed(a.visibility, b.visibility),
        world_m=None if a.world_m is None or b.world_m is None else mixed(a.world_m, b.world_m),
        mask=nearer.mask and _moved(nearer.mask, (points - nearer.landmarks_px).mean(0)),
    )
    turn = math.remainder(b_roi.angle - a_roi.angle, 2 * math.pi)
    roi = replace(
        a_roi,
        x=a_roi.x + share * (b_roi.x - a_roi.x),
        y=a_roi.y + share * (b_roi.y - a_roi.y),
        side=a_roi.side + share * (b_roi.side - a_roi.side),
        angle=a_roi.angle + share * turn,
        points=points,
    )
    return person, roi


def _moved(mask: Mask, by_px: np.ndarray) -> Mask:
    to_image = mask.to_image.copy()
    to_image[:, 2] += by_px
    return Mask(mask.values, to_image)
