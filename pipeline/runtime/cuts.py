"""Detecting cuts: frames at which the whole picture changes at once."""

from __future__ import annotations

import math

import cv2
import numpy as np

_SMALL = (64, 36)
"""Width and height at which pictures are compared."""
_SHIFT = (8, 5)
"""The largest shift between two pictures that is compensated, at that size."""


class CutDetector:
    """Detects cuts in one source's pictures, and tells them from motion.

    Small grey pictures are compared after the shift that aligns them (phase correlation; Kuglin and
    Hines, 1975), so that a shaken camera is not a cut. A cut changes the picture much more than the
    clip has changed lately (mean absolute difference) and leaves little resemblance (correlation,
    which a change of brightness does not affect). A dissolve is not detected.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._hann = cv2.createHanningWindow(_SMALL, cv2.CV_32F)
        self._usual_change = 0.0
        self._compared = 0

    def is_cut(self, image: np.ndarray) -> bool:
        """Return whether a picture does not continue the one before it.

        Args:
            image: (H, W, 3) RGB uint8, the next picture of the source.
        """
        now = _small_grey(image)
        last, self._last = self._last, now
        if last is None:
            return False
        difference, correlation = float(np.abs(now - last).mean()), 1.0
        # Below this nothing is called a cut, so the alignment is spared.
        if difference >= 10.0:
            difference, correlation = self._compare(last, now)
        # These thresholds were measured on fast motion, shaken cameras and a thousand splices, as
        # the tests do. The less two pictures correlate, the smaller a change is enough.
        other_scene = correlation < 0.6 and difference >= max(
            10.0, (2.0 if correlation < 0.3 else 4.0) * self._usual_change
        )
        other_take = (
            correlation < 0.82
            and self._compared >= 3
            and difference >= max(12.0, 8.0 * self._usual_change)
        )
        if other_scene or other_take:
            # What was usual before the cut says nothing about the pictures after it.
            self._usual_change, self._compared = 0.0, 0
            return True
        # The first difference sets what is usual; later ones move it slowly.
        weight = 0.1 if self._compared else 1.0
        self._usual_change += weight * (difference - self._usual_change)
        self._compared += 1
        return False

    def _compare(self, last: np.ndarray, now: np.ndarray) -> tuple[float, float]:
        """(difference in grey levels, correlation), as they are or shifted, the better match."""
        plain = _difference_and_correlation(last, now)
        # The window is applied here, because OpenCV's own windowing writes into its inputs.
        (dx, dy), _ = cv2.phaseCorrelate(last * self._hann, now * self._hann)
        if abs(dx) > _SHIFT[0] or abs(dy) > _SHIFT[1]:
            return plain
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(last, shift, _SMALL)
        # Only where both pictures have pixels: the shift leaves an empty border.
        rows = slice(max(0, math.ceil(dy)), _SMALL[1] + min(0, math.floor(dy)))
        columns = slice(max(0, math.ceil(dx)), _SMALL[0] + min(0, math.floor(dx)))
        shifted = _difference_and_correlation(moved[rows, columns], now[rows, columns])
        return max(plain, shifted, key=lambda pair: pair[1])


def _small_grey(image: np.ndarray) -> np.ndarray:
    """Grey levels of a small copy of an RGB image, less their mean, float32."""
    # Every n-th pixel is enough, and far cheaper than averaging all of them.
    step = max(1, min(image.shape[0] // _SMALL[1], image.shape[1] // _SMALL[0]))
    small = cv2.resize(image[::step, ::step], _SMALL, interpolation=cv2.INTER_AREA)
    grey = small.mean(axis=2, dtype=np.float32)
    return grey - grey.mean()


def _difference_and_correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference and correlation of two pictures, each less its mean."""
    first, second = first - first.mean(), second - second.mean()
    spread = max(float(first.std() * second.std()), 1e-6)
    return float(np.abs(first - second).mean()), float((first * second).mean()) / spread
