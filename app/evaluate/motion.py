"""The figures of motion: accelerations (is it smooth?), lag (is it late?) and speed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from app.evaluate import metrics
from app.evaluate.metrics import LIMBS, WRISTS, mean, percentile
from app.evaluate.outcome import Outcome, Row, row_of


def chain(outcome: Outcome, person: int, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return one person's values over time.

    Args:
        outcome: The compared frames.
        person: The person's number in the truth.
        values: Values (K, ...) of rows of the truth.
        rows: The rows (K,).

    Returns:
        Values (T, ...) of all frames from the first to the last one; NaN where the person has none.
    """
    frames = [tally.frame for tally in outcome.tallies]
    # With the gaps as NaN, so that differences over a gap are not taken for motion.
    out = np.full((max(frames) - min(frames) + 1, *values.shape[1:]), np.nan)
    own = outcome.truth.person[rows] == person
    out[outcome.truth.frame[rows[own]] - min(frames)] = values[own]
    return out


def motion_rows(outcome: Outcome) -> list[Row]:
    """Return the accelerations, the wrists' lag and speed, in the image and in space."""
    truth, rows = outcome.truth, outcome.paired
    if not len(rows):
        return []
    hidden = ~truth.visible[rows][..., None]
    theirs = truth.landmarks_px[rows]
    # Only frames with a mesh are used for all three, so that the figures can be compared.
    sets = [outcome.stack("mesh_px"), outcome.stack("perceived_px"), theirs]
    sets = [np.where(hidden | np.isnan(theirs), np.nan, points) for points in sets]
    accelerations: list[list[np.ndarray]] = [[], [], []]
    wrists: list[list[np.ndarray]] = [[], [], []]
    for person in np.unique(truth.person[rows]):
        torso = float(np.nanmedian(truth.torso_px[truth.person == person]))
        for k, points in enumerate(sets):
            # In torso lengths, so that people near and far count alike.
            path = chain(outcome, person, points, rows) / torso
            accelerations[k].append(metrics.accelerations(path[:, LIMBS]).ravel())
            wrists[k].append(metrics.speeds(path[:, WRISTS]))
    sizes = [np.concatenate(part) for part in accelerations]
    speed = [np.concatenate(part, axis=1) for part in wrists]
    known = np.isfinite(speed[0]) & np.isfinite(speed[2])
    # The same samples for all three, or a gap in one would look like slowness.
    fast = [percentile(np.where(known, part, np.nan), 95) for part in speed]
    lags, correlations = zip(*(metrics.lag(own, speed[2]) for own in speed[:2]))
    unit = "torso/frame²"
    return [
        row_of("accel", "acceleration in the image, mean", unit, map(mean, sizes), "reference"),
        row_of("accel_p95", "  95th percentile", unit, (percentile(a, 95) for a in sizes),
            "reference"),
        *_space_motion(outcome),
        row_of("lag_frames", "wrists' lag", "frames", lags),
        row_of("wrist_correlation", "  correlation at that lag", "", correlations),
        row_of("wrist_speed_p95", "wrists' speed, 95th percentile", "torso/frame", fast,
            "reference"),
    ]  # fmt: skip


def _space_motion(outcome: Outcome) -> Iterable[Row]:
    """Return the accelerations in space, relative to the middle of the hips."""
    truth, rows = outcome.truth, outcome.paired
    if truth.landmarks_m is None:
        return
    theirs = metrics.from_hips(truth.landmarks_m[rows])
    sets = [metrics.from_hips(outcome.stack(name)) for name in ("mesh_m", "perceived_m")]
    sets = [np.where(np.isnan(theirs), np.nan, points) for points in [*sets, theirs]]
    sizes = []
    for points in sets:
        paths = [chain(outcome, person, points, rows) for person in np.unique(truth.person[rows])]
        parts = [metrics.accelerations(1e3 * path[:, LIMBS]).ravel() for path in paths]
        sizes.append(np.concatenate(parts))
    unit = "mm/frame²"
    yield row_of("accel_3d_mm", "acceleration in space, mean", unit, map(mean, sizes), "reference")
    tails = (percentile(values, 95) for values in sizes)
    yield row_of("accel_3d_p95_mm", "  95th percentile", unit, tails, "reference")
