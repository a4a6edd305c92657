"""The camera's own rotation and zoom, from the background of its pictures."""

from __future__ import annotations

from collections import deque

import numpy as np

from pipeline.core.yuv import Pixels
from pipeline.world.background_points import Shrunk, find_points
from pipeline.world.camera_view import CameraView, checked_boxes, checked_lens
from pipeline.world.key_frames import KeyFrame, KeyFrames, describe, view_from_features
from pipeline.world.matching import DirectMatch, Match, align_key, match_key, shifted
from pipeline.world.parallax import shows_parallax
from pipeline.world.pyramid import Pyramid
from pipeline.world.rotation_zoom import View, going_on

_GROWN = 0.1
_GROWN_PX = 6.0
"""Boxes of people are grown by this share of their size, and this many pixels of the small copy."""
_LEAVE_PX, _SURELY_PX, _GAIN_PX = 0.25, 1.5, 0.06
_SETTLED_PX, _SETTLED_FRAMES = 0.12, 6
"""A still camera's view is held until some pixel moves by the first of these and half of the points
come nearer to where they are expected by the third; or until one moves by the second. It is held
again when no pixel has moved by the fourth for so long. Pixels of the small copy."""
_FEW = 0.5
"""A key frame of which less than this share of its points is left is replaced."""
_MANY = 32
"""Where the corners that agree are in fewer cells, all pixels decide if they can: a body without a
box has corners too."""
_LOST_FRAMES = 10
_BLIND_FRAMES, _OPEN_FRAMES = 2, 10
"""Posts look alike, so pictures are aligned only after the first number of unknown frames at most;
and one motion that pictures leave open is guessed for the second number of frames."""
_TRIED_A_FRAME = 4
_PARALLAX_FRAMES = 3.0
_FADE = 0.2 / _PARALLAX_FRAMES
_NO_POINTS = np.zeros((0, 2), np.float32)


class CameraMotion:
    """Measures a camera's rotation and zoom frame by frame; memory is bounded.

    Corners outside people's boxes are followed from a key frame to each picture (Lucas and Kanade),
    and most of them decide on three unknowns of rotation and one of zoom. A camera that has turned
    away from all key frames makes another one; one that returns is matched against the old ones.
    Where corners are few, all pixels with a gradient decide (direct alignment).

    Args:
        intrinsics: K (3, 3) of the reference frame, pixels.
        size: (height, width) of the pictures, pixels.

    Raises:
        ValueError: The intrinsics are none of a pinhole camera, or the size is too small.
    """

    def __init__(self, intrinsics: np.ndarray, size: tuple[int, int]) -> None:
        lens = checked_lens(intrinsics, size)
        self._size = size
        self._shrunk = Shrunk(size)
        self._lens = self._shrunk.intrinsics(lens)
        self._rng = np.random.default_rng(0)
        self._frame = -1
        self._begin()

    def _begin(self) -> None:
        """Forget everything that was seen."""
        self._keys = KeyFrames(self._lens, self._shrunk.size)
        self._key: KeyFrame | None = None
        self._view = View(np.eye(3), 1.0)
        self._guess = self._view
        self._held: View | None = self._view
        self._recent: deque[View] = deque(maxlen=_SETTLED_FRAMES)
        self._before: KeyFrame | None = None
        self._lost = self._blind = self._open = 0
        self._other: KeyFrame | None = None
        self._parallax = 0.0
        self._reference = self._frame

    def add(
        self, image: Pixels, boxes_px: np.ndarray | None = None, cut: bool = False
    ) -> CameraView:
        """Return where the camera looks in the next frame.

        Args:
            image: RGB uint8 (H, W, 3), grey uint8 (H, W), or planes.
            boxes_px: (P, 4) boxes x0, y0, x1, y1 of people and other things that move, pixels.
            cut: This frame does not continue the one before it: it begins again.

        Raises:
            ValueError: The picture is of another size or kind, or a box is none.
        """
        boxes = self._grown(checked_boxes(image, boxes_px, self._size))
        self._frame += 1
        if cut:
            self._begin()
        grey = self._shrunk.grey(image)
        if self._key is None:
            return self._first(grey, boxes)
        match = self._find(grey, boxes)
        if match is None:
            return self._without(grey, boxes)
        speed_px = self._keys.distance_px(self._view, match.view)
        before, self._key, self._view = self._view, match.key, match.view
        view, still = self._settle(match)
        # The way since a view some frames ago is no speed.
        self._guess = match.view if self._blind else going_on(before, match.view)
        self._lost, self._blind, self._other = 0, 0, None
        if isinstance(match, DirectMatch):
            self._open = self._open + 1 if match.unsure else 0
            if still:
                # What the picture leaves open must not creep.
                self._view = self._guess = view
        corners = match.corners if isinstance(match, DirectMatch) else match
        if corners is not None:
            corners.key.learn(corners.chosen, corners.explained)
            if corners is not match and _is_worn(corners):
                corners = None
        self._judge_parallax(corners, speed_px, still)
        self._before = KeyFrame(grey, _NO_POINTS, self._view, boxes)
        self._renew(grey, boxes, match, speed_px)
        error_px = match.error_px / float(self._shrunk.scale.mean())
        return self._pose(view, still, error_px, match.share)

    def _grown(self, boxes_px: np.ndarray) -> np.ndarray:
        """People's boxes (P, 4) in the small copy, grown."""
        small = boxes_px * np.tile(self._shrunk.scale, 2)
        grow = _GROWN_PX + _GROWN * np.abs(small[:, 2:] - small[:, :2])
        return np.concatenate([small[:, :2] - grow, small[:, 2:] + grow], 1)

    def _first(self, grey: np.ndarray, boxes: np.ndarray) -> CameraView:
        """The pose of the first frame, if it has enough background to be the reference."""
        key = KeyFrame(grey, find_points(grey, boxes), self._view, boxes)
        self._reference = self._frame
        if not key.cornered and not key.direct(self._lens).determined:
            return self._pose(self._view, True, None, 0.0)
        self._key = key
        self._keys.keep(key)
        self._before = key
        return self._pose(self._view, True, 0.0, 1.0)

    def _without(self, grey: np.ndarray, boxes: np.ndarray) -> CameraView:
        """The pose of a frame in which nothing known was recognised."""
        self._parallax = 0.0
        self._guess = self._view
        self._blind += 1
        # Another background counts only where each picture of it shows the one before: a body that
        # moves before a wall is none.
        view = View(np.eye(3), 1.0)
        last, self._other = self._other, KeyFrame(grey, find_points(grey, boxes), view, boxes)
        goes_on = last is not None and self._compare(
            [last], grey, boxes, Pyramid(grey, boxes), view
        )
        self._lost = self._lost + 1 if goes_on else 0
        if self._lost >= _LOST_FRAMES:
            self._begin()
            return self._first(grey, boxes)
        return self._pose(self._held or self._view, False, None, 0.0)

    def _pose(
        self, view: View, still: bool, error_px: float | None, explained: float
    ) -> CameraView:
        known = error_px is not None
        return CameraView(
            view.rotation.copy(), view.zoom, still and known, self._parallax >= 1.0, known,
            error_px if error_px is not None else np.inf, explained, self._reference,
        )  # fmt: skip

    def _find(self, grey: np.ndarray, boxes: np.ndarray) -> Match | DirectMatch | None:
        """Find a picture's view: where the last one was, then nearby, then wherever it was
        before."""
        assert self._key is not None
        assert self._before is not None
        near = [*self._keys.near(self._view, self._key), self._before]
        now = Pyramid(grey, boxes)
        aligns = self._blind <= _BLIND_FRAMES
        match = self._compare(near, grey, boxes, now, self._guess, aligns)
        if match is None:
            guess = shifted(self._view, self._before.grey, grey, self._lens)
            match = self._compare(near, grey, boxes, now, guess, aligns)
        if match is not None:
            return match
        described = describe(grey)
        ordered = self._keys.nearest_first(self._view)
        start = self._frame * _TRIED_A_FRAME % len(ordered)
        for key in ordered[start : start + _TRIED_A_FRAME]:
            found = view_from_features(key, described, self._lens, self._rng)
            match = None if found is None else self._compare([key], grey, boxes, now, found)
            if match is not None:
                return match
        return None

    def _compare(
        self,
        keys: list[KeyFrame],
        grey: np.ndarray,
        boxes: np.ndarray,
        now: Pyramid,
        guess: View,
        aligns: bool = True,
    ) -> Match | DirectMatch | None:
        """Compare a picture with key frames, by corners, and where these are few by all pixels."""
        few = None
        for key in keys:
            match = None
            if key.cornered:
                match = match_key(key, grey, boxes, guess, self._lens, self._rng)
            if match is not None and match.cells >= _MANY:
                return match
            few = few or match
        for key in keys if aligns else ():
            aligned = align_key(key, now, guess, self._lens)
            if aligned is not None and (aligned.unsure == 0 or self._open < _OPEN_FRAMES):
                return aligned._replace(corners=few)
        return few

    def _settle(self, match: Match | DirectMatch) -> tuple[View, bool]:
        """The view to report, and whether it is that of a still camera, which is held: neither
        noise nor a crowd that moves with it moves it."""
        if self._held is not None:
            if not self._leaves(match, self._held):
                return self._held, True
            self._held = None
            self._recent.clear()
        self._recent.append(match.view)
        if len(self._recent) == _SETTLED_FRAMES and all(
            self._keys.distance_px(one, match.view) <= _SETTLED_PX for one in self._recent
        ):
            self._held = match.view
        return match.view, False

    def _leaves(self, match: Match | DirectMatch, held: View) -> bool:
        """Whether a picture's view is another than the held one, and most points say so."""
        distance_px = self._keys.distance_px(match.view, held)
        if not _LEAVE_PX < distance_px <= _SURELY_PX:
            return distance_px > _LEAVE_PX
        return match.gain_px(held, self._lens) > _GAIN_PX

    def _judge_parallax(self, match: Match | None, speed_px: float, still: bool) -> None:
        if still or match is None:
            self._parallax = 0.0 if still else max(0.0, self._parallax - _FADE)
            return
        turned_px = self._keys.distance_px(match.key.view, match.view)
        at_px = match.now_px - match.residual_px
        side = max(self._shrunk.size)
        speed_px = float(np.hypot(speed_px, match.key.speed_px))
        seen = shows_parallax(at_px, match.residual_px, turned_px, speed_px, side, self._rng)
        # One frame may err; a new key frame has no parallax yet.
        step = 1.0 / _PARALLAX_FRAMES if seen else -_FADE
        self._parallax = float(np.clip(self._parallax + step, 0.0, 2.0))

    def _renew(
        self, grey: np.ndarray, boxes: np.ndarray, match: Match | DirectMatch, speed_px: float
    ) -> None:
        """Make the picture a key frame where the camera looks elsewhere than at any, or where too
        little of the last one is left."""
        view = match.view
        new = self._keys.is_new(view)
        if isinstance(match, Match):
            explained = int(match.explained.sum())
            few = _is_worn(match)
        else:
            explained, few = 0, match.overlap < _FEW or match.key not in self._keys.all
        if not new and not few:
            return
        points = find_points(grey, boxes)
        if new or not explained or len(points) > 1.3 * explained:
            self._key = KeyFrame(grey, points, view, boxes, speed_px)
            self._keys.keep(self._key)


def _is_worn(match: Match) -> bool:
    """Whether few points of a key frame are left."""
    return int(match.explained.sum()) < _FEW * match.key.most_explained
