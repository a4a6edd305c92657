"""What a person looks like, in about a hundred numbers: the colours of head, torso, arms and legs.

It tells people apart for some seconds, by clothes and hair. It is no face recognition: the head is
one patch of colours, nothing in it is found or compared, and the numbers of a person who is gone
are forgotten after seconds (`TrackConfig`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numba_loops import compiled
from pipeline.core.mask_lookup import parts_of, value_at
from pipeline.core.people import Person
from pipeline.core.skeleton import LANDMARKS
from pipeline.core.yuv import Pixels, every, pixels_at, size_of

_SAMPLES = 48
"""Pixels that are read in each region."""
_QUANTILES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_LIMITS = np.array([[-3.0, 2.0], [-1.0, 1.0], [-1.0, 1.0]], np.float32)
"""Least and largest brightness and chroma; more would be noise of dark or overexposed pixels."""
_DARK = 0.02
"""Added to linear light as parts of white: below it a pixel is mostly noise."""
_LINEAR = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
"""Linear light of each grey level."""
_LOGARITHM = np.log(_LINEAR + _DARK)
"""Natural logarithm of each grey level's light."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """The colours of a person's regions.

    Attributes:
        colours: (5, 3, 5) float32: of head, torso, arms, thighs and shins; brightness, red and blue
            against green, as natural logarithms relative to the picture's mean; quantiles 0.1 to
            0.9 of the region's pixels.
        seen: (5,) float32, the share of each region that was seen.
    """

    colours: np.ndarray
    seen: np.ndarray

    def mixed(self, newer: Appearance, share: float) -> Appearance:
        """Return this appearance moved towards a newer one, by a share of what that one saw.

        Args:
            newer: Another sighting of the same person.
            share: The share of the newer one where both saw everything.
        """
        weight = share * newer.seen
        # A region that was not seen yet is taken over.
        weight = np.where(self.seen > weight, weight / np.maximum(self.seen, 1e-6), 1.0)
        weight = np.where(newer.seen > 0, weight, 0.0).astype(np.float32)
        colours = self.colours + weight[:, None, None] * (newer.colours - self.colours)
        return Appearance(colours, np.maximum(self.seen, newer.seen))


def describe(person: Person, image: Pixels, light: np.ndarray) -> Appearance:
    """Return what a person looks like in a picture.

    Pixels are read at fixed places between the landmarks, where the mask says that they are the
    person's. Relative to the picture's mean (grey world; Buchsbaum 1980), so that the exposure and
    the colour of the light matter little.

    Args:
        person: The person, in BlazePose's landmarks.
        image: The frame's picture.
        light: Its `mean_light`.
    """
    height, width = size_of(image)
    points = np.ascontiguousarray(person.landmarks_px, np.float32)
    rows, columns = np.empty((2, len(_PLACES)), np.int64)
    valid = np.empty(len(_PLACES), np.bool_)
    _find(points, *parts_of(person.mask), height, width, rows, columns, valid)
    pixels = pixels_at(image, rows, columns)
    colours = np.zeros((len(_REGIONS), 3, len(_QUANTILES)), np.float32)
    seen = np.empty(len(_REGIONS), np.float32)
    against = np.array(_contrasts(*np.log(light + _DARK)), np.float32)
    _rank(np.ascontiguousarray(pixels), valid, against, colours, seen)
    return Appearance(colours, seen)


@compiled("void(f4[:, ::1], f4[:, ::1], f4[:, ::1], i8, i8, i8[::1], i8[::1], b1[::1])")
def _find(points, mask, to_image, height, width, rows, columns, valid):
    """Fill where the pixels of a person's regions are, and whether each shows the person."""
    for n in range(len(_PLACES)):
        x = y = np.float32(0)
        for k in range(LANDMARKS):
            x += _PLACES[n, k] * points[k, 0]
            y += _PLACES[n, k] * points[k, 1]
        column, row = np.rint(x), np.rint(y)
        valid[n] = 0 <= column < width and 0 <= row < height
        if valid[n] and len(mask):
            valid[n] = value_at(mask, to_image, x, y) > 0.5
        # What is outside, or no number at all, is read at a corner and not counted.
        columns[n], rows[n] = (int(column), int(row)) if valid[n] else (0, 0)


@compiled("void(u1[:, ::1], b1[::1], f4[::1], f4[:, :, ::1], f4[::1])")
def _rank(pixels, valid, against, colours, seen):
    """Fill the quantiles (5, 3, 5) of the regions' colours, and the share of each that is seen.

    ``against`` (3,) are the contrasts of the picture's mean light; ``colours`` are 0 before.
    """
    values = np.empty((3, _SAMPLES), np.float32)
    for region in range(len(seen)):
        count = 0
        for n in range(region * _SAMPLES, (region + 1) * _SAMPLES):
            if valid[n]:
                red, green, blue = pixels[n]
                logarithms = _LOGARITHM[red], _LOGARITHM[green], _LOGARITHM[blue]
                values[0, count], values[1, count], values[2, count] = _contrasts(*logarithms)
                count += 1
        seen[region] = count / _SAMPLES
        if count == 0:
            continue
        for channel in range(3):
            ranked = np.sort(values[channel, :count])
            for k, quantile in enumerate(_QUANTILES):
                value = ranked[int(quantile * (count - 1) + 0.5)] - against[channel]
                low, high = _LIMITS[channel]
                colours[region, channel, k] = min(max(value, low), high)


def mean_light(image: Pixels) -> np.ndarray:
    """Return the mean linear light (3,) of a picture, parts of white, from some of its pixels."""
    step = max(1, min(size_of(image)) // 24)
    return np.asarray(_LINEAR[every(image, step)].mean((0, 1)))


def difference(one: Appearance, other: Appearance) -> tuple[np.ndarray, float]:
    """Return how far two appearances are apart, and how much of the person both saw.

    Returns:
        (3,) the mean distance between the distributions of brightness, red and blue (Wasserstein's
        of order one) over the regions; and the regions' common weight, in [0, 5].
    """
    weight = np.minimum(one.seen, other.seen)
    # Few pixels say nothing about a region.
    weight = np.where(weight > 0.15, weight, 0.0)
    total = float(weight.sum())
    distance = np.abs(one.colours - other.colours).mean(-1)
    return (weight @ distance) / max(total, 1e-6), total


@compiled()
def _contrasts(red, green, blue):
    """Return brightness, red and blue against green of logarithms of linear light."""
    return green + (red - green) / 3, red - green, blue - green


def _patch(corners: Sequence[np.ndarray], across: int, down: int) -> np.ndarray:
    """Places (across * down, 33) in a quadrilateral, whose corners are sums of landmarks."""
    x, y = np.meshgrid((np.arange(across) + 0.5) / across, (np.arange(down) + 0.5) / down)
    x, y = x.reshape(-1, 1), y.reshape(-1, 1)
    first, second, third, fourth = corners
    return (1 - y) * ((1 - x) * first + x * second) + y * ((1 - x) * third + x * fourth)


def _regions() -> list[np.ndarray]:
    """Places (48, 33) of each region as sums of landmarks."""
    mark = np.eye(LANDMARKS)
    shoulders, ears = 0.5 * (mark[11] + mark[12]), 0.5 * (mark[7] + mark[8])
    # From the mouth to the crown, as wide as the ears are apart.
    up, aside = 0.9 * (ears - shoulders), 0.5 * (mark[7] - mark[8])
    low, high = ears - 0.2 * (ears - shoulders), ears + 0.6 * up
    head = [high + aside, high - aside, low + aside, low - aside]

    def limb(*ends: tuple[int, int]) -> np.ndarray:
        lines = [[mark[a], mark[a], mark[b], mark[b]] for a, b in ends]
        return np.concatenate([_patch(line, 1, _SAMPLES // len(ends)) for line in lines])

    return [
        _patch(head, 6, 8),
        _patch([mark[11], mark[12], mark[23], mark[24]], 6, 8),
        limb((11, 13), (13, 15), (12, 14), (14, 16)),
        limb((23, 25), (24, 26)),
        limb((25, 27), (26, 28)),
    ]


_REGIONS = _regions()
_PLACES = np.concatenate(_REGIONS).astype(np.float32)
