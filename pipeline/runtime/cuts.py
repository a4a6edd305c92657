"""Detecting cuts: frames at which another scene begins, not only other light."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.core.yuv import Pixels, every, size_of

_SMALL = (64, 36)
"""Width and height at which pictures are compared."""
_SHIFT = (8, 5)
"""The largest shift between two pictures that is compensated, at that size."""
_NEIGHBOURHOOD = (7, 7)
"""Width and height of the neighbourhoods whose structure is compared, at that size."""
_LEAST_STRUCTURE = 3.0
"""A picture with less structure than this, in grey levels, shows nothing that can be compared."""
_WHITE = 240.0
"""A picture with a higher mean is nearly all white, and what is left of it is clipped."""
_OTHER_LIGHT = 25.0
"""Pictures whose mean differs by more grey levels are taken in other light."""
_UNCHANGED = 5.0
"""Neighbourhoods whose pixels differ by fewer grey levels on average are unchanged."""
_STANDING = 0.15
"""Where this share of a picture is unchanged, something large and near has moved before it. It is
more in 1 % of the cuts between 22 clips and enlarged parts of them, and in 85 % of the moments in
which hands and bodies that fill such parts would be cuts without this."""
_BLACK = 20.0
"""Bars around a picture are darker than this grey level, and stay through cuts."""
_WIDEST_BARS = (24, 11)
"""The widest bars at the sides and the highest above and below that are left out, at that size:
a little more than upright footage has in a wide picture, and wide footage in a 4:3 picture."""
_LAGS = (4, 8, 16, 24, 32)
"""Frames from the middle of a dissolve to each of the two pictures of which it is a mixture."""


class _Picture(NamedTuple):
    """A small copy of a picture.

    Attributes:
        grey: Grey levels (36, 64) less their mean.
        mean: That mean.
        lightest: The lightest grey level of each column (64,) and of each row (36,).
    """

    grey: np.ndarray
    mean: float
    lightest: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, grey: np.ndarray) -> _Picture:
        """The picture of grey levels (H, W)."""
        mean = float(grey.mean())
        return cls(grey - mean, mean, (grey.max(0), grey.max(1)))


class CutDetector:
    """Detects cuts in one source's pictures, and tells them from motion and from lighting.

    Small grey pictures are compared after the shift that aligns them (phase correlation; Kuglin and
    Hines, 1975), so that a shaken camera is not a cut. A cut changes the picture much more than the
    clip has changed lately (mean absolute difference), leaves little resemblance (correlation), and
    leaves hardly any area as it was.

    Another lighting leaves the structure of each neighbourhood: the correlation within it, which
    no smooth change of brightness affects. A black or white picture has none. It is passed over,
    and the next one is compared with the last before it.

    A picture within a dissolve is a mixture of an earlier and a later one that do not resemble each
    other, which motion never makes. A dissolve is a cut a little after its middle.
    """

    def __init__(self) -> None:
        self._recent: deque[_Picture] = deque(maxlen=2 * _LAGS[-1])
        self._usual_change = 0.0
        self._compared = 0
        self._passed_over = False

    def is_cut(self, pixels: Pixels) -> bool:
        """Return whether another scene begins with a picture.

        Args:
            pixels: The next picture of the source.
        """
        now = _small_grey(pixels)
        structure = float(np.sqrt(_variance(now.grey).mean()))
        if structure < _LEAST_STRUCTURE or now.mean > _WHITE:
            self._passed_over = True
            return False
        cut = bool(self._recent) and (self._is_other_scene(now) or self._is_mixed(now))
        if cut:
            # What was usual before the cut says nothing about the pictures after it.
            self._usual_change, self._compared = 0.0, 0
            self._recent.clear()
        self._recent.append(now)
        self._passed_over = False
        return cut

    def _is_other_scene(self, picture: _Picture) -> bool:
        """Whether a picture shows another scene than the last one; updates what is usual."""
        before, after = _without_bars(self._recent[-1], picture)
        last, now = before.grey, after.grey
        brighter = after.mean - before.mean
        relit = self._passed_over or abs(brighter) > _OTHER_LIGHT
        difference = _difference(last, now)
        # A small change is no cut, so the alignment is spared. But where the light has changed,
        # the first dim picture of another scene is a small change too.
        if difference < 10.0 and not relit:
            self._learn(difference)
            return False
        # A cut, and another light, change the whole picture, a wall behind a waving arm included.
        # Two dim pictures around a dark one are alike whatever they show.
        if not self._passed_over and _share_unchanged(before, after) > _STANDING:
            self._learn(difference)
            return False
        last, now = _aligned(last, now)
        difference, correlation = _difference_and_correlation(last, now)
        structure = _structure_in_common(last, now)
        if relit:
            return correlation < 0.6 and structure < 0.4
        # These thresholds were measured on fast motion, shaken cameras, changes of light and a
        # thousand splices, as the tests do. The less two pictures correlate, the smaller a change
        # is enough.
        other_scene = (
            correlation < 0.6
            and structure < 0.6
            and difference >= max(10.0, (2.0 if correlation < 0.3 else 4.0) * self._usual_change)
        )
        # Another take has the same light.
        other_take = (
            correlation < 0.82
            and (structure < 0.8 or (structure < 0.9 and abs(brighter) < 8.0))
            and self._compared >= 3
            and difference >= max(12.0, 8.0 * self._usual_change)
        )
        if not (other_scene or other_take):
            self._learn(difference)
        return other_scene or other_take

    def _learn(self, difference: float) -> None:
        """The first difference sets what is usual; later ones move it slowly."""
        weight = 0.1 if self._compared else 1.0
        self._usual_change += weight * (difference - self._usual_change)
        self._compared += 1

    def _is_mixed(self, now: _Picture) -> bool:
        """Whether pictures back to one that does not resemble this one are mixtures of the two."""
        for lag in _LAGS:
            if 2 * lag > len(self._recent):
                return False
            first, middle = self._recent[-2 * lag], self._recent[-lag]
            before, after = _without_bars(first, now)
            if (
                _difference(before.grey, after.grey) >= 10.0
                and _is_mixture(middle, first, now)
                and _structure_in_common(*_aligned(before.grey, after.grey)) < 0.5
            ):
                return True
        return False


def _without_bars(first: _Picture, second: _Picture) -> tuple[_Picture, _Picture]:
    """Two pictures without the black bars that both have on opposite sides.

    Bars stay through cuts, so they make any two pictures resemble each other.
    """
    columns, rows = (
        _between_bars(one, two, widest)
        for one, two, widest in zip(first.lightest, second.lightest, _WIDEST_BARS)
    )
    if rows.start == columns.start == 0:
        return first, second
    one, two = (_Picture.of(p.grey[rows, columns] + p.mean) for p in (first, second))
    return one, two


def _between_bars(first: np.ndarray, second: np.ndarray, widest: int) -> slice:
    """The columns or rows between those at both ends that are black in both pictures, by the
    lightest grey level of each."""
    # Most pictures have no bars; this is asked several times a frame.
    if max(first[0], second[0]) >= _BLACK or max(first[-1], second[-1]) >= _BLACK:
        return slice(0, len(first))
    shown = np.flatnonzero(np.maximum(first, second) >= _BLACK)
    bar = min(int(shown[0]), len(first) - 1 - int(shown[-1])) if len(shown) else 0
    # The line beside a bar is partly of the bar.
    bar = bar + 1 if bar else 0
    return slice(bar, len(first) - bar) if bar <= widest else slice(0, len(first))


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two pictures."""
    # In one call of OpenCV, which lets other sources' threads run meanwhile.
    return cv2.norm(first, second, cv2.NORM_L1) / first.size


def _aligned(last: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures as they are, or their common part after the shift between them, whichever
    correlates better."""
    height, width = now.shape
    # The window is applied here, because OpenCV's own windowing writes into its inputs.
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(last * window, now * window)
    if abs(dx) > _SHIFT[0] or abs(dy) > _SHIFT[1]:
        return last, now
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    moved = cv2.warpAffine(last, shift, (width, height))
    # Only where both pictures have pixels: the shift leaves an empty border.
    rows = slice(max(0, math.ceil(dy)), height + min(0, math.floor(dy)))
    columns = slice(max(0, math.ceil(dx)), width + min(0, math.floor(dx)))
    pairs = (last, now), (moved[rows, columns], now[rows, columns])
    return max(pairs, key=lambda pair: _difference_and_correlation(*pair)[1])


def _small_grey(pixels: Pixels) -> _Picture:
    """A small grey copy of a picture."""
    # Some pixels of each area are enough, and far cheaper than averaging all of them. They are
    # more than one, because the noise of a dark picture is no structure.
    height, width = size_of(pixels)
    step = max(1, min(height // (4 * _SMALL[1]), width // (4 * _SMALL[0])))
    small = cv2.resize(every(pixels, step), _SMALL, interpolation=cv2.INTER_AREA)
    return _Picture.of(small.mean(axis=2, dtype=np.float32))


def _difference_and_correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference and correlation of two pictures, each less its mean."""
    first, second = first - first.mean(), second - second.mean()
    spread = max(float(first.std() * second.std()), 1e-6)
    return _difference(first, second), float((first * second).mean()) / spread


def _share_unchanged(first: _Picture, second: _Picture) -> float:
    """Share of the pixels that are not black whose neighbourhood is the same in two pictures."""
    one, two = first.grey + first.mean, second.grey + second.mean
    shown = np.maximum(one, two) > _BLACK
    same = cv2.blur(np.abs(two - one), _NEIGHBOURHOOD) < _UNCHANGED
    return float((same & shown).sum()) / max(int(shown.sum()), 1)


def _covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Covariance of two pictures (H, W) in the neighbourhood of each pixel."""
    products = cv2.blur(first * second, _NEIGHBOURHOOD)
    return products - cv2.blur(first, _NEIGHBOURHOOD) * cv2.blur(second, _NEIGHBOURHOOD)


def _variance(picture: np.ndarray) -> np.ndarray:
    """Variance of a picture (H, W) in the neighbourhood of each pixel."""
    return np.maximum(_covariance(picture, picture), 0.0)


def _structure_in_common(first: np.ndarray, second: np.ndarray) -> float:
    """Mean correlation within neighbourhoods, each weighted by its structure in both pictures."""
    weights = np.sqrt(_variance(first) * _variance(second))
    return float(_covariance(first, second).sum()) / max(float(weights.sum()), 1e-6)


def _is_mixture(middle: _Picture, first: _Picture, second: _Picture) -> bool:
    """Whether a picture is a weighted mean of two others, much better than it is one of them."""
    # Smoothed, so that small motions within both scenes matter less.
    parts = np.stack([cv2.blur(p.grey, (5, 5)).ravel() for p in (first, second)])
    whole = cv2.blur(middle.grey, (5, 5)).ravel()
    # A little on the diagonal, so that equal pictures have a solution.
    shares = np.linalg.solve(parts @ parts.T + np.eye(2, dtype=np.float32), parts @ whole)
    if shares.min() < 0.2 or shares.max() > 0.9 or shares.sum() < 0.7:
        return False
    # In a moment of other light everything is brighter or darker than in a mixture.
    brighter = middle.mean - float(shares @ (first.mean, second.mean)) / float(shares.sum())
    unexplained = np.linalg.norm(whole - shares @ parts)
    nearest = np.linalg.norm(whole - parts, axis=1).min()
    return abs(brighter) < _OTHER_LIGHT and bool(unexplained < 0.42 * nearest)
