"""Alignment of whole pictures, where the background has too few corners to be matched.

All pixels with a gradient count, so posts, lines and faint texture do. The inverse compositional
algorithm (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004) takes gradients and Jacobians
from the key picture only, once.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.linalg import eigh
from scipy.spatial.transform import Rotation

from pipeline.world.pyramid import Pyramid
from pipeline.world.rotation_zoom import View, between, motions, transfer

_LEAST_GRADIENT = 3.0
"""Grey levels a pixel. Sensor noise of 5 grey levels on a plain wall has less in 99 of 100 pixels
of the largest copy, and in all of the next."""
_CELL_PX, _A_CELL = 20, 24
"""The side of a cell, and the most pixels that are chosen in it: those of the largest gradients."""
_STEPS, _STOP_PX = 12, 0.02
_NARROW, _WIDE = 3.0, 40.0
"""Limits of the robust loss's width, grey levels."""
_ALIKE = 12.0
"""Neighbouring pixels have errors alike: this number of them says as much as one."""
_PRIOR_PX = 2.0
"""How far a picture is expected from its guess, standard deviation, in the copy of 320 pixels."""
_SURE_PX = 0.35
"""A motion whose standard deviation is less is determined, in the copy of 320 pixels."""
_EXPLAINED_PX = 1.5
_LEAST_PIXELS, _LEAST_CELLS, _LEAST_SHARE, _LEAST_ALIKE = 150, 8, 0.5, 0.5


class _Level(NamedTuple):
    """What a key picture gives at one size: K, chosen pixels (N, 2), their grey levels (N,), the
    change of those by a step (N, 4), their gradients' lengths (N,) and their cells (N,)."""

    intrinsics: np.ndarray
    at_px: np.ndarray
    grey: np.ndarray
    slopes: np.ndarray
    gradient: np.ndarray
    cell: np.ndarray


class Aligned(NamedTuple):
    """What the alignment of a picture with a key picture gave.

    Attributes:
        view: The picture's view.
        error_px: The root mean square, over the explained pixels, of how far their grey levels are
            from those of the key, along their gradients; pixels of the small copy.
        share: The share of pixels that the view explains, each cell of the picture alike.
        alike: The correlation of the grey levels of all pixels.
        unsure: How many of the four motions (three of rotation, one of zoom, or sums of them) the
            picture does not determine; along these the guess is kept.
        cells: The number of cells with explained pixels.
        overlap: The share of the key picture's pixels that the picture shows.
    """

    view: View
    error_px: float
    share: float
    alike: float
    unsure: int
    cells: int
    overlap: float

    @property
    def good(self) -> bool:
        """Whether what is determined is right by all measures."""
        return (
            self.share >= _LEAST_SHARE and self.alike >= _LEAST_ALIKE and self.cells >= _LEAST_CELLS
        )


class DirectKey:
    """A key picture's pixels with a gradient, ready to be aligned with other pictures.

    Args:
        pyramid: The key picture.
        view: Where it looks.
        intrinsics: K (3, 3) of the small copies at zoom 1, pixels.
    """

    def __init__(self, pyramid: Pyramid, view: View, intrinsics: np.ndarray) -> None:
        self.view = view
        self._levels = [
            self._level(pyramid, number, intrinsics) for number in range(len(pyramid.levels))
        ]

    def _level(self, pyramid: Pyramid, number: int, intrinsics: np.ndarray) -> _Level:
        lens = np.diag([0.5 ** (number + 1), 0.5 ** (number + 1), 1.0]) @ intrinsics
        image = pyramid.levels[number]
        across, down = (cv2.Scharr(image, cv2.CV_32F, *way) / 32 for way in ((1, 0), (0, 1)))
        gradient = np.hypot(across, down)
        gradient[~pyramid.masked(number)] = 0
        gradient[:2] = gradient[-2:] = 0
        gradient[:, :2] = gradient[:, -2:] = 0
        y, x = np.nonzero(gradient >= _LEAST_GRADIENT)
        cell = (y // _CELL_PX) * 1000 + x // _CELL_PX
        order = np.lexsort((-gradient[y, x], cell))
        _, start, count = np.unique(cell[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(start, count)
        order = order[place < _A_CELL]
        x, y = x[order], y[order]
        at = np.column_stack([x, y]).astype(float)
        way = np.stack([across[y, x], down[y, x]], -1)
        slopes = np.einsum("ni,nij->nj", way, motions(at, self.view.zoom, lens))
        return _Level(lens, at, image[y, x].astype(float), slopes, gradient[y, x], cell[order])

    @property
    def determined(self) -> bool:
        """Whether the key picture has gradients enough, in different directions, for a view."""
        # Noise has gradients in the largest copy only, and blocks of a codec faint ones.
        if len(self._levels) < 2:
            return False
        level = self._levels[1]
        strong = level.gradient >= 2 * _LEAST_GRADIENT
        return bool(
            strong.sum() >= _LEAST_PIXELS
            and len(np.unique(level.cell[strong])) >= _LEAST_CELLS
            and self._unsure(level, strong.astype(float), 2 * _NARROW) == 0
        )

    def align(self, now: Pyramid, guess: View) -> Aligned | None:
        """Return where a picture looks.

        Args:
            now: The picture.
            guess: About where it looks: within some 20 pixels of the small copy.

        Returns:
            The alignment, good or not; None where the pictures share too few pixels.
        """
        view = guess
        for number in reversed(range(len(self._levels))):
            level = self._levels[number]
            found = self._descend(level, now, number, view, guess)
            if found is None:
                if number == 0:
                    return None
                continue
            view = found
        # Rounding errors must not grow from frame to frame.
        exact = Rotation.from_matrix(view.rotation).as_matrix()
        return self._judge(now, View(exact, view.zoom))

    def _sample(
        self, level: _Level, now: Pyramid, number: int, view: View
    ) -> tuple[np.ndarray, np.ndarray]:
        """The grey levels (N,) of a picture where a view sees the key's pixels, and which of these
        (N,) bool it sees."""
        image = now.levels[number]
        height, width = image.shape
        if not len(level.at_px):
            return np.zeros(0), np.zeros(0, bool)
        lens = level.intrinsics
        at = transfer(level.at_px, between(self.view, view, lens))
        seen = ((at >= 1) & (at <= (width - 2, height - 2))).all(1)
        for box in now.boxes_px / 2.0 ** (number + 1):
            seen &= ~((at >= box[:2]) & (at <= box[2:])).all(1)
        x, y = at.astype(np.float32).T[..., None]
        grey = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(grey)[:, 0].astype(float), np.asarray(seen)

    def _descend(
        self, level: _Level, now: Pyramid, number: int, view: View, guess: View
    ) -> View | None:
        prior = self._prior(level) * 4.0**number
        for _ in range(_STEPS):
            grey, seen = self._sample(level, now, number, view)
            if seen.sum() < max(1, _LEAST_PIXELS / 4**number):
                return None
            residual, weight, noise = _robust(grey, level.grey, seen)
            slopes = level.slopes
            weighted = slopes * (weight / (noise * noise * _ALIKE))[:, None]
            # How far the guess is from here: the prior pulls back to it.
            back = self._apart(view, guess)
            step = np.linalg.solve(
                weighted.T @ slopes + prior, weighted.T @ residual + prior @ back
            )
            view = self._stepped(view, step)
            moves_px = np.abs(level.intrinsics[0, 0] * self.view.zoom * step).max()
            if moves_px < _STOP_PX * 2**number:
                break
        return view

    def _stepped(self, view: View, step: np.ndarray) -> View:
        """A view after the key picture was found to have moved by a step, which turns the view
        back by as much: the inverse composition."""
        turned = self.view.rotation @ cv2.Rodrigues(-step[:3])[0]
        rotation = turned @ self.view.rotation.T @ view.rotation
        return View(rotation, view.zoom * float(np.exp(-np.clip(step[3], -0.5, 0.5))))

    def _apart(self, view: View, guess: View) -> np.ndarray:
        """The step (4,) that takes a view to the guess."""
        there = self.view.rotation.T @ guess.rotation @ view.rotation.T @ self.view.rotation
        turn = cv2.Rodrigues(there)[0][:, 0]
        return np.array([*-turn, -np.log(guess.zoom / view.zoom)])

    def _prior(self, level: _Level) -> np.ndarray:
        """The information (4, 4) of the guess."""
        return _metric(level, self.view.zoom) / _PRIOR_PX**2

    def _unsure(self, level: _Level, weight: np.ndarray, noise: float) -> int:
        """How many motions the pixels do not determine."""
        scaled = level.slopes * (weight / (noise * noise * _ALIKE))[:, None]
        information = eigh(
            scaled.T @ level.slopes, _metric(level, self.view.zoom), eigvals_only=True
        )
        return int((information < 1 / _SURE_PX**2).sum())

    def _judge(self, now: Pyramid, view: View) -> Aligned:
        level = self._levels[0]
        grey, seen = self._sample(level, now, 0, view)
        residual, weight, noise = _robust(grey, level.grey, seen)
        unsure = self._unsure(level, weight, noise)
        off_px = np.abs(residual) / level.gradient
        explained = seen & (off_px < _EXPLAINED_PX / 2)
        _, cell, count = np.unique(level.cell[seen], return_inverse=True, return_counts=True)
        share = float((explained[seen] / count[cell]).sum() / len(count))
        first, second = (part[seen] - part[seen].mean() for part in (grey, level.grey))
        length = float(np.sqrt((first @ first) * (second @ second)))
        # An even picture is like none.
        alike = float(first @ second) / length if length > 0 else 0.0
        cells = len(np.unique(level.cell[explained]))
        error_px = 2 * float(np.sqrt((off_px[explained] ** 2).mean())) if cells else np.inf
        return Aligned(view, error_px, share, alike, unsure, cells, float(seen.mean()))

    def median_off_px(self, now: Pyramid, view: View) -> float:
        """Return how far the grey levels of half of the pixels are from those of the key, along
        their gradients, where a picture is taken to have a view; pixels of the small copy."""
        level = self._levels[0]
        grey, seen = self._sample(level, now, 0, view)
        residual, _, _ = _robust(grey, level.grey, seen)
        return 2 * float(np.median(np.abs(residual[seen]) / level.gradient[seen]))


def _metric(level: _Level, zoom: float) -> np.ndarray:
    """The mean square of pixels' motion by a step, as a form (4, 4), square pixels."""
    width, height = 2 * level.intrinsics[:2, 2]
    across = np.meshgrid(np.linspace(0, width, 5), np.linspace(0, height, 5))
    motion = motions(np.stack(across, -1).reshape(-1, 2), zoom, level.intrinsics).reshape(-1, 4)
    return np.asarray(motion.T @ motion) / 25


def _robust(
    now: np.ndarray, key: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The residuals (N,) of grey levels without a gain and an offset, their weights (N,), and their
    standard deviation among most pixels."""
    if not seen.any():
        return now - key, np.zeros(len(key)), _WIDE
    gain, offset = 1.0, float(np.median((now - key)[seen]))
    residual = now - key - offset
    noise = _NARROW
    for _ in range(2):
        noise = float(np.clip(1.4826 * np.median(np.abs(residual[seen])), _NARROW, _WIDE))
        weight = seen / (1 + (residual / (2.5 * noise)) ** 2) ** 2
        total = weight.sum()
        mean_key, mean_now = (weight @ key) / total, (weight @ now) / total
        about = weight * (key - mean_key)
        gain = float(np.clip(about @ now / (about @ key + 1e-9), 0.5, 2.0))
        offset = mean_now - gain * mean_key
        residual = (now - gain * key - offset) / gain
    return residual, seen / (1 + (residual / (2.5 * noise)) ** 2) ** 2, noise
