"""Matching of a picture against a key frame."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from pipeline.world.background_points import are_enough, cells, follow, in_boxes
from pipeline.world.key_frames import KeyFrame
from pipeline.world.pyramid import Pyramid
from pipeline.world.rotation_zoom import View, between, find_view, moved, refine_view, transfer

_EXPLAINED_PX = 1.5
_AS_EXPECTED_PX = 1.0
_LEAST_POINTS, _LEAST_SHARE = 12, 0.25
"""A view is known where at least this many points, with this share of the weight, are explained."""
_SEARCH_PX = 160
"""The width at which the shift of a large motion is searched."""


class Match(NamedTuple):
    """What matching a picture against a key frame gave.

    Attributes:
        key: The key frame.
        view: The picture's view.
        chosen: (M,) the indices of the key frame's points that were followed.
        now_px: (M, 2) where they are in the picture, pixels of the small copy.
        residual_px: (M, 2) what the view leaves of them.
        explained: (M,) bool, which points the view explains.
        share: The share of those, by weight.
    """

    key: KeyFrame
    view: View
    chosen: np.ndarray
    now_px: np.ndarray
    residual_px: np.ndarray
    explained: np.ndarray
    share: float

    @property
    def error_px(self) -> float:
        """The root mean square of the residuals of explained points."""
        return float(np.sqrt((self.residual_px[self.explained] ** 2).sum(1).mean()))

    @property
    def cells(self) -> int:
        """The number of cells of the picture in which points are explained."""
        return len(np.unique(cells(self.now_px[self.explained])))

    def gain_px(self, other: View, intrinsics: np.ndarray) -> float:
        """Return how much nearer half of the points are to where the view expects them than to
        where another does."""
        points = self.key.points_px[self.chosen].astype(float)
        at_other = transfer(points, between(self.key.view, other, intrinsics))
        left = np.median(np.hypot(*(self.now_px - at_other).T))
        return float(left - np.median(np.hypot(*self.residual_px.T)))


class DirectMatch(NamedTuple):
    """What aligning a picture with a key frame gave.

    Attributes:
        key: The key frame.
        view: The picture's view.
        error_px: The root mean square of what the view leaves, pixels of the small copy.
        share: The share of pixels that it explains.
        overlap: The share of the key frame's pixels that the picture shows.
        unsure: How many of the four motions the picture does not determine.
        now: The picture.
        corners: What matching by corners gave, where these were not trusted alone.
    """

    key: KeyFrame
    view: View
    error_px: float
    share: float
    overlap: float
    unsure: int
    now: Pyramid
    corners: Match | None = None

    def gain_px(self, other: View, intrinsics: np.ndarray) -> float:
        """Return how much better the view explains half of the pixels than another does."""
        direct = self.key.direct(intrinsics)
        return direct.median_off_px(self.now, other) - direct.median_off_px(self.now, self.view)


def align_key(
    key: KeyFrame, now: Pyramid, guess: View, intrinsics: np.ndarray
) -> DirectMatch | None:
    """Align a picture with a key frame, and find its view.

    Args:
        key: The key frame.
        now: The picture.
        guess: About where the camera looks.
        intrinsics: K (3, 3) of the small copies, pixels.

    Returns:
        The match; None where the pictures differ, or leave more than one motion open.
    """
    found = key.direct(intrinsics).align(now, guess)
    if found is None or not found.good or found.unsure > 1:
        return None
    return DirectMatch(
        key, found.view, found.error_px, found.share, found.overlap, found.unsure, now
    )


def match_key(
    key: KeyFrame,
    grey: np.ndarray,
    boxes_px: np.ndarray,
    guess: View,
    intrinsics: np.ndarray,
    rng: np.random.Generator,
) -> Match | None:
    """Follow a key frame's points to a picture, and find its view.

    Args:
        key: The key frame.
        grey: The picture's small copy, uint8 (h, w).
        boxes_px: (P, 4) boxes x0, y0, x1, y1 that are left out, pixels of the copy.
        guess: About where the camera looks.
        intrinsics: K (3, 3) of the small copies, pixels.
        rng: Chooses pairs of points.

    Returns:
        The match; None where too few points agree.
    """
    expected = transfer(key.points_px, between(key.view, guess, intrinsics))
    height, width = grey.shape
    inside = ((expected > 0) & (expected < (width - 1, height - 1))).all(1)
    chosen = np.flatnonzero(inside & ~in_boxes(expected, boxes_px))
    if len(chosen) < _LEAST_POINTS:
        return None
    points, expected = key.points_px[chosen].astype(float), expected[chosen]
    weights = key.weights(chosen)
    # Most often the camera goes on as before, and then half the work is enough.
    found, good = follow(key.grey, grey, points, expected, levels=1, check=False)
    near = good & (np.hypot(*(found - expected).T) < _AS_EXPECTED_PX)
    as_expected = weights[near].sum() >= 0.5 * weights.sum()
    if not as_expected:
        found, good = follow(key.grey, grey, points, expected, levels=3, check=True)
        good &= ~in_boxes(found, boxes_px)
    if good.sum() < _LEAST_POINTS:
        return None
    chosen, points, found, weights = chosen[good], points[good], found[good], weights[good]
    if as_expected:
        estimate = refine_view(points, found, weights, key.view, guess, intrinsics)
    else:
        estimate = find_view(points, found, weights, key.view, guess, intrinsics, rng)
    explained = np.hypot(*estimate.residual_px.T) < _EXPLAINED_PX
    share = float(weights[explained].sum() / weights.sum())
    if not are_enough(found[explained]) or share < _LEAST_SHARE:
        return None
    return Match(key, estimate.view, chosen, found, estimate.residual_px, explained, share)


def shifted(view: View, before: np.ndarray, now: np.ndarray, intrinsics: np.ndarray) -> View:
    """Return a view moved by the shift between two pictures (phase correlation; Kuglin and Hines,
    1975).

    Args:
        view: The view of the first picture.
        before: Its small copy, uint8 (h, w).
        now: The second picture's.
        intrinsics: K (3, 3) of the small copies, pixels.
    """
    height, width = now.shape
    factor = min(1.0, _SEARCH_PX / width)
    small = max(8, round(width * factor)), max(8, round(height * factor))
    window = cv2.createHanningWindow(small, cv2.CV_32F)
    first, second = (
        (cv2.resize(grey, small, interpolation=cv2.INTER_AREA).astype(np.float32) - 128) * window
        for grey in (before, now)
    )
    (dx, dy), _ = cv2.phaseCorrelate(first, second)
    focal = intrinsics[[0, 1], [0, 1]] * view.zoom
    x, y = dx * width / small[0] / focal[0], dy * height / small[1] / focal[1]
    return moved(view, np.array([y, -x, 0.0, 0.0]))
