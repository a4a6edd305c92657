"""The camera's own rotation and zoom, from the background of its pictures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from pipeline.core.yuv import Pixels, YuvImage, size_of
from pipeline.world.background_points import Shrunk, find_points
from pipeline.world.key_frames import KeyFrame, KeyFrames, describe, view_from_features
from pipeline.world.matching import Match, are_enough, match_key, shifted
from pipeline.world.parallax import shows_parallax
from pipeline.world.rotation_zoom import View, between, going_on, transfer

SMALLEST_PX = 64
"""The least height and width of a picture."""
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
_LOST_FRAMES = 10
_TRIED_A_FRAME = 4
_PARALLAX_FRAMES = 3.0
_PARALLAX_FADES = 0.2


@dataclass(frozen=True, eq=False)
class CameraView:
    """Where a camera looks in a frame, relative to its reference frame.

    Attributes:
        rotation: (3, 3) float64, from the camera's axes at this frame to those of the reference.
        zoom: The focal length relative to the reference's.
        still: The camera did not move; the rotation and zoom are exactly those of the frame before.
        translated: Parallax says that the camera changes its place, which rotation and zoom do not
            explain; they are then those that explain most of the picture.
        known: Enough of the background was recognised. Otherwise the rotation and zoom are the
            last that were known.
        error_px: The root mean square of what the motion leaves of the points that it explains, in
            pixels of the picture; infinite where it is not known.
        explained: The share of the background's points that it explains, from 0 to 1.
        reference: The index of the reference among the frames that were added: the first with
            enough background after the last cut. It is this frame after a cut, and where the
            background was lost and another one could be followed for ten frames.
    """

    rotation: np.ndarray
    zoom: float
    still: bool
    translated: bool
    known: bool
    error_px: float
    explained: float
    reference: int


class CameraMotion:
    """Measures a camera's rotation and zoom frame by frame; memory is bounded.

    Corners outside people's boxes are followed from a key frame to each picture (Lucas and Kanade),
    and most of them decide on three unknowns of rotation and one of zoom. A camera that has turned
    away from all key frames makes another one; one that returns is matched against the old ones.

    Args:
        intrinsics: K (3, 3) of the reference frame, pixels.
        size: (height, width) of the pictures, pixels.

    Raises:
        ValueError: The intrinsics are none of a pinhole camera, or the size is too small.
    """

    def __init__(self, intrinsics: np.ndarray, size: tuple[int, int]) -> None:
        lens = np.asarray(intrinsics, float)
        if lens.shape != (3, 3) or not np.isfinite(lens).all():
            raise ValueError(f"intrinsics are finite and (3, 3), not {lens.shape}: {lens.tolist()}")
        if lens[0, 0] <= 0 or lens[1, 1] <= 0 or not np.array_equal(lens[2], (0, 0, 1)):
            raise ValueError(
                f"intrinsics have focal lengths above 0 and end in 0 0 1: {lens.tolist()}"
            )
        if min(size) < SMALLEST_PX:
            raise ValueError(f"pictures have {SMALLEST_PX} pixels or more a side, not {size}")
        self._size = tuple(size)
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
        self._before: np.ndarray | None = None
        self._lost = 0
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
        boxes = self._checked(image, boxes_px)
        self._frame += 1
        if cut:
            self._begin()
        grey = self._shrunk.grey(image)
        if self._key is None:
            return self._first(grey, boxes)
        match = self._find(grey, boxes)
        self._before = grey
        if match is None:
            return self._without(grey, boxes)
        self._lost, self._other = 0, None
        match.key.learn(match.chosen, match.explained)
        self._guess = going_on(self._view, match.view)
        speed_px = self._keys.distance_px(self._view, match.view)
        self._key, self._view = match.key, match.view
        view, still = self._settle(match)
        self._judge_parallax(match, speed_px, still)
        self._renew(grey, boxes, match, view, speed_px)
        square = (match.residual_px[match.explained] ** 2).sum(1)
        error_px = float(np.sqrt(square.mean())) / float(self._shrunk.scale.mean())
        return self._pose(view, still, error_px, match.share)

    def _checked(self, image: Pixels, boxes_px: np.ndarray | None) -> np.ndarray:
        """People's boxes (P, 4) in the small copy, grown; raises where an input is wrong."""
        if not isinstance(image, YuvImage) and (
            image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,))
        ):
            raise ValueError(
                f"a picture is RGB uint8 (H, W, 3) or grey (H, W), not {image.dtype} {image.shape}"
            )
        size = size_of(image) if isinstance(image, YuvImage) else image.shape[:2]
        if tuple(size) != self._size:
            raise ValueError(
                f"the pictures were {self._size} pixels, and this one is {tuple(size)}"
            )
        boxes = np.zeros((0, 4)) if boxes_px is None else np.asarray(boxes_px, float)
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"people's boxes are (P, 4), not {boxes.shape}")
        if not np.isfinite(boxes).all():
            raise ValueError("people's boxes are finite numbers of pixels")
        small = boxes * np.tile(self._shrunk.scale, 2)
        grow = _GROWN_PX + _GROWN * np.abs(small[:, 2:] - small[:, :2])
        return np.concatenate([small[:, :2] - grow, small[:, 2:] + grow], 1)

    def _first(self, grey: np.ndarray, boxes: np.ndarray) -> CameraView:
        """The pose of the first frame, if it has enough background to be the reference."""
        points = find_points(grey, boxes)
        self._reference = self._frame
        if not are_enough(points):
            return self._pose(self._view, True, None, 0.0)
        self._key = KeyFrame(grey, points, self._view)
        self._keys.keep(self._key)
        self._before = grey
        return self._pose(self._view, True, 0.0, 1.0)

    def _without(self, grey: np.ndarray, boxes: np.ndarray) -> CameraView:
        """The pose of a frame in which nothing known was recognised."""
        self._parallax = 0.0
        self._guess = self._view
        # Another background counts only where each picture of it shows the one before: a body that
        # moves before a wall is none.
        view = View(np.eye(3), 1.0)
        last, self._other = self._other, KeyFrame(grey, find_points(grey, boxes), view)
        goes_on = last is not None and self._match(last, grey, boxes, view) is not None
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

    def _find(self, grey: np.ndarray, boxes: np.ndarray) -> Match | None:
        """Match a picture: where the last one was, then nearby, then wherever it was before."""
        assert self._key is not None
        assert self._before is not None
        nearest = self._keys.nearest_first(self._view)
        for key in {id(key): key for key in (self._chosen(nearest), nearest[0])}.values():
            match = self._match(key, grey, boxes, self._guess)
            if match is None:
                guess = shifted(self._view, self._before, grey, self._lens)
                match = self._match(key, grey, boxes, guess)
            if match is not None:
                return match
        described = describe(grey)
        start = self._frame * _TRIED_A_FRAME % len(nearest)
        for key in nearest[start : start + _TRIED_A_FRAME]:
            found = view_from_features(key, described, self._lens, self._rng)
            match = None if found is None else self._match(key, grey, boxes, found)
            if match is not None:
                return match
        return None

    def _match(
        self, key: KeyFrame, grey: np.ndarray, boxes: np.ndarray, guess: View
    ) -> Match | None:
        return match_key(key, grey, boxes, guess, self._lens, self._rng)

    def _chosen(self, nearest: list[KeyFrame]) -> KeyFrame:
        """The last key frame, until another one is much nearer."""
        assert self._key is not None
        last, best = (self._keys.distance_px(k.view, self._view) for k in (self._key, nearest[0]))
        return nearest[0] if best < 0.6 * last - 2.0 else self._key

    def _settle(self, match: Match) -> tuple[View, bool]:
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

    def _leaves(self, match: Match, held: View) -> bool:
        """Whether a picture's view is another than the held one, and most points say so."""
        distance_px = self._keys.distance_px(match.view, held)
        if not _LEAVE_PX < distance_px <= _SURELY_PX:
            return distance_px > _LEAVE_PX
        points = match.key.points_px[match.chosen].astype(float)
        at_held = transfer(points, between(match.key.view, held, self._lens))
        left = np.median(np.hypot(*(match.now_px - at_held).T))
        return bool(left - np.median(np.hypot(*match.residual_px.T)) > _GAIN_PX)

    def _judge_parallax(self, match: Match, speed_px: float, still: bool) -> None:
        if still:
            self._parallax = 0.0
            return
        turned_px = self._keys.distance_px(match.key.view, match.view)
        at_px = match.now_px - match.residual_px
        side = max(self._shrunk.size)
        speed_px = float(np.hypot(speed_px, match.key.speed_px))
        seen = shows_parallax(at_px, match.residual_px, turned_px, speed_px, side, self._rng)
        # One frame may err; a new key frame has no parallax yet.
        step = 1.0 / _PARALLAX_FRAMES if seen else -_PARALLAX_FADES / _PARALLAX_FRAMES
        self._parallax = float(np.clip(self._parallax + step, 0.0, 2.0))

    def _renew(
        self, grey: np.ndarray, boxes: np.ndarray, match: Match, view: View, speed_px: float
    ) -> None:
        """Make the picture a key frame where the camera looks elsewhere than at any, or where too
        few points of the last one are left."""
        explained = int(match.explained.sum())
        new = self._keys.is_new(view)
        if not new and explained >= _FEW * match.key.most_explained:
            return
        points = find_points(grey, boxes)
        if are_enough(points) and (new or len(points) > 1.3 * explained):
            self._key = KeyFrame(grey, points, view, speed_px)
            self._keys.keep(self._key)
