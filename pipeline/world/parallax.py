"""Parallax: what a camera that changes its place leaves of a motion without translation."""

from __future__ import annotations

import numpy as np

from pipeline.world.background_points import cells

_LEAST_POINTS = 24
_OFF_PX = 1.2
"""A point with a larger residual is off the motion of the others."""
_OFF_SHARE = 0.2
"""The least share of the picture's cells whose points are off."""
_SPREAD = 0.12
"""Their least standard deviation across the picture, in its longer side; a thing that moves has
less."""
_ONE_EPIPOLE = 0.75
"""The least share of them whose residuals point to one epipole."""
_ANGLE = np.sin(np.radians(12.0))
_PAIRS = 200
_BENT_PX = 1.2
_BENT_BY_LENS = 0.045
"""A wrong lens leaves a smooth residual, and more of it the further the camera has turned: a focal
length that is 20 per cent wrong up to 3 per cent of the motion."""
_BENT_BY_SHUTTER = 0.2
"""A rolling shutter that reads for two thirds of a frame moves rows by this share of the motion
from frame to frame, root mean square."""


def shows_parallax(
    at_px: np.ndarray,
    residual_px: np.ndarray,
    turned_px: float,
    speed_px: float,
    longer_side_px: int,
    rng: np.random.Generator,
) -> bool:
    """Return whether residuals of a motion without translation are those of a translation.

    A translation moves each point towards or away from one epipole, by its nearness (plane and
    parallax: Irani and Anandan, 1998). A quadratic field in the picture, which a wrong lens and
    a rolling shutter make, is taken out first: what is left has to be at different depths. A field
    alone is a translation where it is much larger than the rotation can make it.

    Args:
        at_px: (N, 2) where the motion without translation takes the points, pixels.
        residual_px: (N, 2) what it leaves of their motion, pixels.
        turned_px: How far that motion is, pixels.
        speed_px: How far the camera turns from one frame to the next, pixels, in both pictures.
        longer_side_px: The picture's longer side, pixels.
        rng: Chooses pairs of points.
    """
    if len(at_px) < _LEAST_POINTS:
        return False
    _, cell, count = np.unique(cells(at_px), return_inverse=True, return_counts=True)
    weights = 1.0 / count[cell]
    field = _quadratic_field(at_px / longer_side_px, residual_px, weights)
    bent = float(np.sqrt((weights * (field * field).sum(1)).sum() / weights.sum()))
    if bent > _BENT_PX + _BENT_BY_LENS * turned_px + _BENT_BY_SHUTTER * speed_px:
        return True
    off = np.hypot(*(residual_px - field).T) > _OFF_PX
    off &= np.hypot(*residual_px.T) > _OFF_PX
    if weights[off].sum() < _OFF_SHARE * weights.sum():
        return False
    if at_px[off].std(0).max() < _SPREAD * longer_side_px:
        return False
    return _share_with_one_epipole(at_px[off], residual_px[off], rng) >= _ONE_EPIPOLE


def _quadratic_field(at: np.ndarray, residual_px: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The field (N, 2) of second order in the picture that most residuals follow."""
    x, y = (at - at.mean(0)).T
    terms = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    field = np.zeros_like(residual_px)
    for _ in range(6):
        left = ((residual_px - field) ** 2).sum(1)
        weight = weights / (1 + left / _OFF_PX**2) ** 2
        normal = (terms.T * weight) @ terms + 1e-6 * np.eye(6)
        field = terms @ np.linalg.solve(normal, (terms.T * weight) @ residual_px)
    return field


def _share_with_one_epipole(
    at_px: np.ndarray, residual_px: np.ndarray, rng: np.random.Generator
) -> float:
    """The largest share of residuals that point to, or away from, one place."""
    direction = residual_px / np.hypot(*residual_px.T)[:, None]
    points = np.column_stack([at_px, np.ones(len(at_px))])
    lines = np.cross(points, np.column_stack([direction, np.zeros(len(at_px))]))
    first = rng.integers(0, len(lines), _PAIRS)
    second = (first + rng.integers(1, len(lines), _PAIRS)) % len(lines)
    place = np.cross(lines[first], lines[second])
    # The way from each point to each place; one at infinity is a direction.
    way = place[:, None, :2] - place[:, None, 2:] * at_px
    length = np.hypot(way[..., 0], way[..., 1])
    across = np.abs(way[..., 0] * direction[:, 1] - way[..., 1] * direction[:, 0])
    return float((across <= _ANGLE * np.maximum(length, 1e-9)).mean(1).max())
