"""Finds cuts: where the picture is another one at once."""

from __future__ import annotations

import math

import cv2
import numpy as np

_SMALL = (64, 36)
_SHIFT = (8, 5)
"""Pictures are compared at this width and height, shifted by so much at most."""


class CutDetector:
    """Tells a cut from motion: nearly the whole picture is another one at once.

    Small grey pictures are compared after the shift that brings them together (phase correlation;
    Kuglin and Hines, 1975), so that a shaken camera is no cut. A cut changes them much more than
    this clip has lately changed (mean absolute difference) and leaves them little alike
    (correlation, which a change of brightness does not touch). A dissolve is not found.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._hann = cv2.createHanningWindow(_SMALL, cv2.CV_32F)
        self._usual = 0.0
        self._seen = 0

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether RGB uint8 ``image`` (H, W, 3) does not continue the one before it."""
        now = _small_grey(image)
        last, self._last = self._last, now
        if last is None:
            return False
        difference, alike = float(np.abs(now - last).mean()), 1.0
        if difference >= 10.0:
            difference, alike = self._compare(last, now)
        # Measured on fast motion, shaken cameras and a thousand splices, as the tests do.
        other_scene = alike < 0.6 and difference >= max(
            10.0, (2.0 if alike < 0.3 else 4.0) * self._usual
        )
        other_take = alike < 0.82 and self._seen >= 3 and difference >= max(12.0, 8.0 * self._usual)
        if other_scene or other_take:
            self._usual, self._seen = 0.0, 0
            return True
        weight = 0.1 if self._seen else 1.0
        self._usual += weight * (difference - self._usual)
        self._seen += 1
        return False

    def _compare(self, last: np.ndarray, now: np.ndarray) -> tuple[float, float]:
        """(difference in grey levels, correlation) as they are, or shifted if that fits better."""
        plain = _difference_and_correlation(last, now)
        # Windowed here: OpenCV's own windowing writes into its inputs.
        (dx, dy), _ = cv2.phaseCorrelate(last * self._hann, now * self._hann)
        if abs(dx) > _SHIFT[0] or abs(dy) > _SHIFT[1]:
            return plain
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(last, shift, _SMALL)
        rows = slice(max(0, math.ceil(dy)), _SMALL[1] + min(0, math.floor(dy)))
        columns = slice(max(0, math.ceil(dx)), _SMALL[0] + min(0, math.floor(dx)))
        shifted = _difference_and_correlation(moved[rows, columns], now[rows, columns])
        return max(plain, shifted, key=lambda pair: pair[1])


def _small_grey(image: np.ndarray) -> np.ndarray:
    """Grey levels about their mean, float32, of a small copy of an RGB image."""
    # Every n-th pixel is enough, and far cheaper than averaging all of them.
    step = max(1, min(image.shape[0] // _SMALL[1], image.shape[1] // _SMALL[0]))
    small = cv2.resize(image[::step, ::step], _SMALL, interpolation=cv2.INTER_AREA)
    grey = small.mean(axis=2, dtype=np.float32)
    return grey - grey.mean()


def _difference_and_correlation(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    one, two = one - one.mean(), two - two.mean()
    spread = max(float(one.std() * two.std()), 1e-6)
    return float(np.abs(one - two).mean()), float((one * two).mean()) / spread
