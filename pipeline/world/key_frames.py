"""Key frames: pictures of the background whose views are known, kept to be matched again."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.world.background_points import are_enough, cells
from pipeline.world.direct_alignment import DirectKey
from pipeline.world.pyramid import Pyramid
from pipeline.world.rotation_zoom import View, between, find_view, transfer

MOST_KEY_FRAMES = 48
"""About 250 KB each, and 300 KB more where a picture was aligned with it directly."""
NEW_AT = 0.18
"""A view whose pixels are this far from those of every key frame becomes one, in the longer side:
about 8 degrees with the usual lens, or a zoom of 1.3."""
_TRUST_RATE = 0.1
_LEAST_TRUST = 0.05
_FEATURES = 500
_LEAST_FOUND = 15


@dataclass(eq=False)
class KeyFrame:
    """A picture of the background.

    Attributes:
        grey: Its small copy, uint8 (h, w).
        points_px: (N, 2) float32 corners in it, pixels of the copy.
        view: Where the camera looked.
        boxes_px: (P, 4) boxes x0, y0, x1, y1 of people in it, grown, pixels of the copy.
        speed_px: How far its pixels moved from the frame before it.
        cornered: It has corners enough to be matched by them.
        trust: (N,) how often each point has moved as the background does.
        most_explained: The most points that have moved so in one picture.
    """

    grey: np.ndarray
    points_px: np.ndarray
    view: View
    boxes_px: np.ndarray
    speed_px: float = 0.0
    cornered: bool = field(init=False)
    trust: np.ndarray = field(init=False)
    most_explained: int = field(init=False, default=0)
    _described: tuple[np.ndarray, np.ndarray | None] | None = field(init=False, default=None)
    _direct: DirectKey | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.cornered = are_enough(self.points_px)
        self.trust = np.ones(len(self.points_px))

    def weights(self, chosen: np.ndarray) -> np.ndarray:
        """Return how much each of the chosen points (N,) bool counts: trusted ones more, and those
        of a crowded part of the picture less."""
        _, cell, count = np.unique(
            cells(self.points_px[chosen]), return_inverse=True, return_counts=True
        )
        return self.trust[chosen] / count[cell]

    def learn(self, chosen: np.ndarray, explained: np.ndarray) -> None:
        """Note whether the chosen points, (M,) their indices, moved as the background, (M,) bool:
        a point on something that moves by itself loses its trust."""
        trust = self.trust[chosen] + _TRUST_RATE * (explained - self.trust[chosen])
        self.trust[chosen] = np.maximum(trust, _LEAST_TRUST)
        self.most_explained = max(self.most_explained, int(explained.sum()))

    def described(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return ORB's points (M, 2) and descriptors (M, 32); made when they are first read."""
        if self._described is None:
            self._described = describe(self.grey)
        return self._described

    def direct(self, intrinsics: np.ndarray) -> DirectKey:
        """Return its pixels with a gradient, made when they are first used.

        Args:
            intrinsics: K (3, 3) of the small copies, pixels.
        """
        if self._direct is None:
            pyramid = Pyramid(self.grey, self.boxes_px)
            self._direct = DirectKey(pyramid, self.view, intrinsics)
        return self._direct


def describe(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ORB's points (M, 2) and descriptors (M, 32) or None (Rublee et al., ORB, 2011)."""
    found, descriptors = cv2.ORB.create(_FEATURES).detectAndCompute(grey, None)
    return np.array([point.pt for point in found], float).reshape(-1, 2), descriptors


def view_from_features(
    key: KeyFrame,
    described: tuple[np.ndarray, np.ndarray | None],
    intrinsics: np.ndarray,
    rng: np.random.Generator,
) -> View | None:
    """Return about where a picture looks that was lost, by features that it shares with a key
    frame; None if they share none.

    Args:
        key: The key frame.
        described: The picture's features, from `describe`.
        intrinsics: K (3, 3) of the small copies, pixels.
        rng: Chooses pairs of points.
    """
    key_px, key_descriptors = key.described()
    now_px, descriptors = described
    if key_descriptors is None or descriptors is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(key_descriptors, descriptors)
    if len(matches) < _LEAST_FOUND:
        return None
    first = key_px[[match.queryIdx for match in matches]]
    second = now_px[[match.trainIdx for match in matches]]
    weights = np.ones(len(matches))
    found = find_view(first, second, weights, key.view, key.view, intrinsics, rng)
    explained = np.hypot(*found.residual_px.T) < 3.0
    return found.view if explained.sum() >= _LEAST_FOUND else None


class KeyFrames:
    """The key frames since the last cut: a mosaic of where the camera has looked.

    A view near an older key frame is matched against that one, so a camera that returns finds its
    old direction again, and error grows with the number of key frames on the way, not with time.

    Args:
        intrinsics: K (3, 3) of the small copies, pixels.
        size: (height, width) of the small copies, pixels.
    """

    def __init__(self, intrinsics: np.ndarray, size: tuple[int, int]) -> None:
        self._intrinsics = intrinsics
        height, width = size
        self._side = max(size)
        across = np.meshgrid([0.0, (width - 1) / 2, width - 1], [0.0, (height - 1) / 2, height - 1])
        self._grid = np.stack(across, -1).reshape(-1, 2)
        self.all: list[KeyFrame] = []

    def distance_px(self, first: View, second: View) -> float:
        """Return how far the pixels of two views are from each other, at most."""
        there = transfer(self._grid, between(first, second, self._intrinsics))
        return float(np.hypot(*(there - self._grid).T).max())

    def nearest_first(self, view: View) -> list[KeyFrame]:
        """Return all key frames, those of the nearest views first, of equal ones the newest."""
        newest_first = self.all[::-1]
        return sorted(newest_first, key=lambda key: self.distance_px(key.view, view))

    def near(self, view: View, last: KeyFrame) -> list[KeyFrame]:
        """Return the key frames that a picture is compared with: the last one, until another is
        much nearer, then the nearest; and the nearest with corners, if these have none.

        Args:
            view: About where the picture looks.
            last: The key frame that was used last.
        """
        ordered = self.nearest_first(view)
        to_last, to_best = (self.distance_px(key.view, view) for key in (last, ordered[0]))
        chosen = ordered[0] if to_best < 0.6 * to_last - 2.0 else last
        near = [chosen] if chosen is ordered[0] else [chosen, ordered[0]]
        if not any(key.cornered for key in near):
            near += [key for key in ordered if key.cornered][:1]
        return near

    def is_new(self, view: View) -> bool:
        """Return whether a view is far from every key frame."""
        nearest = min(self.distance_px(key.view, view) for key in self.all)
        return nearest > NEW_AT * self._side

    def keep(self, key: KeyFrame) -> None:
        """Add a key frame. Where there are too many, the older one of the nearest two goes."""
        self.all.append(key)
        if len(self.all) > MOST_KEY_FRAMES:
            del self.all[self._older_of_nearest()]

    def _older_of_nearest(self) -> int:
        """The place of the older one of the two key frames that are nearest to each other."""
        origin = View(np.eye(3), 1.0)
        back = [between(key.view, origin, self._intrinsics) for key in self.all]
        ahead = [between(origin, key.view, self._intrinsics) for key in self.all]
        homography = np.einsum("jkl,ilm->ijkm", ahead, back)
        there = np.einsum("ijkm,nm->ijnk", homography, np.insert(self._grid, 2, 1.0, axis=1))
        moves = there[..., :2] / np.maximum(there[..., 2:], 1e-3) - self._grid
        distance_px = np.hypot(moves[..., 0], moves[..., 1]).max(-1)
        distance_px[np.tril_indices(len(self.all))] = np.inf
        return int(np.unravel_index(distance_px.argmin(), distance_px.shape)[0])
