"""Which parts of a person's feet stand, and where: heels and toes that stay in one place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.world.ground import Ground

_SPAN_S = 0.13
_SLOW_M_S, _FAST_M_S = 0.3, 0.45
"""A part that is slower begins to stand, and it stands until it is faster than the second."""
_LEAST_S = 0.13
"""A shorter rest is the turning point of a swing."""
_ABOVE_LOWEST_M = 0.12
"""A part so far above the lowest one is held up, however still it is."""
_SHUFFLE_M = 0.04
"""A part that ends up so far from where it stood has been moved, however slowly."""
_DEPTH = 0.04
"""How well one camera knows a distance, as a share of it."""
_FLAT_M = 0.02
_MOST_SHIFT = 0.08
_SURE_DEG = 3.5
"""The error of the direction up at which places are still moved towards one floor. Above it that
cost 5 mm on six renders (26 mm on a jump); below it, on walks, it halves the drift of the root."""


class Standing(NamedTuple):
    """The parts of feet that stand in T frames, K parts.

    Attributes:
        place_m: (T, K, 3) where each stands, in the camera's axes: one place as long as it stands.
            Zero elsewhere.
        stands: (T, K) bool.
    """

    place_m: np.ndarray
    stands: np.ndarray


def standing(
    points_m: np.ndarray, known: np.ndarray, interval_s: float, ground: Ground | None = None
) -> Standing:
    """Return which points of feet stand, and where.

    A point stands while it is slow across the view, which one camera sees well, and not held up
    above the others. Its place is the median over that time. Where the ground is known, places are
    moved along their rays towards one floor, as far as the distance is less certain than the floor.

    Args:
        points_m: (T, K, 3) heels and toes in the camera's axes, in frames of equal spacing.
        known: (T, K) whether a point is seen.
        interval_s: The time between frames, in seconds.
        ground: Gravity and the floor; None takes the picture's upright for up.
    """
    points_m = np.asarray(points_m, np.float64)
    up = np.array([0.0, -1.0, 0.0]) if ground is None else ground.up
    speed = _speed_m_s(points_m, interval_s)
    height_m = points_m @ up
    known = np.asarray(known, bool)
    # A part that is not seen may be placed anywhere.
    lowest_m = np.where(known, height_m, np.inf).min(1, keepdims=True)
    allowed = known & (height_m <= lowest_m + _ABOVE_LOWEST_M)
    stands = np.zeros(speed.shape, bool)
    place_m = np.zeros(points_m.shape)
    least = max(round(_LEAST_S / interval_s), 2)
    for part in range(points_m.shape[1]):
        slow, still = allowed[:, part] & (speed[:, part] < _FAST_M_S), speed[:, part] < _SLOW_M_S
        for run in _runs(slow):
            if still[run].any():
                for rest in _rests(points_m[run, part], run, least):
                    stands[rest, part] = True
                    place_m[rest, part] = np.median(points_m[rest, part], 0)
    # A direction that is known less well would move feet by more than it puts right.
    if ground is not None and ground.up_error_deg <= _SURE_DEG and stands.any():
        place_m[stands] = _on_one_floor(place_m[stands], up, ground.up_error_deg)
    return Standing(place_m, stands)


def _speed_m_s(points_m: np.ndarray, interval_s: float) -> np.ndarray:
    """Return how fast points (T, K, 3) move across the rays to them, (T, K)."""
    count = len(points_m)
    reach = max(1, round(_SPAN_S / 2 / interval_s))
    before = np.maximum(np.arange(count) - reach, 0)
    after = np.minimum(np.arange(count) + reach, count - 1)
    ray = points_m / np.maximum(np.linalg.norm(points_m, axis=-1, keepdims=True), 1e-6)
    moved = np.linalg.norm(ray[after] - ray[before], axis=-1)
    moved *= np.linalg.norm(points_m, axis=-1)
    return np.asarray(moved / np.maximum((after - before) * interval_s, 1e-6)[:, None])


def _runs(flags: np.ndarray) -> Iterator[slice]:
    """Yield the runs of True in flags (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist()):
        yield slice(first, last)


def _rests(points_m: np.ndarray, run: slice, least: int) -> Iterator[slice]:
    """Yield the parts of a run (N, 3) in which the point stays in one place."""
    count = len(points_m)
    if count < least:
        return
    ray = points_m / np.linalg.norm(points_m, axis=-1, keepdims=True)
    distance_m = float(np.linalg.norm(np.median(points_m, 0)))
    if count >= 2 * least:
        # Where the two sides differ most, by their means: a step, or the middle of a drift.
        sums = np.cumsum(ray, 0)
        at = np.arange(least, count - least + 1)
        left = sums[at - 1] / at[:, None]
        right = (sums[-1] - sums[at - 1]) / (count - at)[:, None]
        apart_m = distance_m * np.linalg.norm(left - right, axis=-1)
        best = int(apart_m.argmax())
        if apart_m[best] > _SHUFFLE_M:
            cut = int(at[best])
            yield from _rests(points_m[:cut], slice(run.start, run.start + cut), least)
            yield from _rests(points_m[cut:], slice(run.start + cut, run.stop), least)
            return
    yield run


def _on_one_floor(places_m: np.ndarray, up: np.ndarray, error_deg: float) -> np.ndarray:
    """Return places (N, 3) moved along their rays towards the floor that most of them share."""
    height_m = places_m @ up
    floor_m = float(np.median(height_m))
    distance_m = np.linalg.norm(places_m, axis=1)
    steep = height_m / np.maximum(distance_m, 1e-6)
    # The floor is less certain the farther a place is from the middle of all of them.
    apart_m = np.linalg.norm(places_m - np.median(places_m, 0), axis=1)
    flat_m = np.hypot(_FLAT_M, np.tan(np.radians(error_deg)) * apart_m)
    depth_m = _DEPTH * distance_m * np.abs(steep)
    share = depth_m**2 / (depth_m**2 + flat_m**2)
    wanted = floor_m / np.where(np.abs(height_m) > 1e-3, height_m, np.inf)
    # Near the camera's own height a ray never meets the floor.
    factor = np.where(wanted > 0, wanted, 1.0)
    factor = np.clip(1 + share * (factor - 1), 1 - _MOST_SHIFT, 1 + _MOST_SHIFT)
    return np.asarray(places_m * factor[:, None])
