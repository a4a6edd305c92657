"""The measures themselves: arrays in, numbers out. NaN stands for what is not known.

Landmarks are BlazePose's 33; *limbs* are the twelve of shoulders, elbows, wrists, hips, knees and
ankles. Lengths come out in the unit they go in.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

SHOULDERS, HIPS, WRISTS = [11, 12], [23, 24], [15, 16]
PAIRS = {
    "shoulder": SHOULDERS, "elbow": [13, 14], "wrist": WRISTS,
    "hip": HIPS, "knee": [25, 26], "ankle": [27, 28],
}  # fmt: skip
LIMBS = [landmark for pair in PAIRS.values() for landmark in pair]

_FAR = 1e9
_LAG_REACH = 6
_LAG_LEAST = 8
_LAG_SHARE = 0.7


def from_hips(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (..., 33, D) from the middle of the hips."""
    return landmarks - landmarks[..., HIPS, :].mean(-2, keepdims=True)


def limb_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Distances (..., 12) of the limbs of (..., 33, 3), the hips' middles laid on each other."""
    return np.linalg.norm(_limb_offsets(ours, theirs), axis=-1)


def limb_depth_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The part of ``limb_errors`` along z, (..., 12)."""
    return np.abs(_limb_offsets(ours, theirs)[..., 2])


def _limb_offsets(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (from_hips(ours) - from_hips(theirs))[..., LIMBS, :]


def procrustes(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """``ours`` (K, 3) under the similarity transform that brings it nearest to ``theirs`` (K, 3)
    in the least-squares sense, never a reflection (Umeyama, PAMI 1991)."""
    a, b = ours - ours.mean(0), theirs - theirs.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((s * signs).sum()) / max(float((a**2).sum()), 1e-12)
    return scale * a @ rotation.T + theirs.mean(0)


def procrustes_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean distance of the limbs of (33, 3) after ``procrustes``; NaN where fewer than six limbs
    are known."""
    a, b = ours[LIMBS], theirs[LIMBS]
    known = np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
    if known.sum() < 6:
        return float("nan")
    a, b = a[known].astype(np.float64), b[known].astype(np.float64)
    return float(np.linalg.norm(procrustes(a, b) - b, axis=-1).mean())


def surface_distance(ours: np.ndarray, theirs: np.ndarray, step: int = 4) -> float:
    """Between two surfaces' vertices (V, 3), (W, 3): the mean distance to the other's nearest
    vertex, both directions averaged. Every ``step``-th vertex asks, all may answer."""
    there = cKDTree(theirs).query(ours[::step])[0].mean()
    back = cKDTree(ours).query(theirs[::step])[0].mean()
    return float(0.5 * (there + back))


def torso_px(landmarks_px: np.ndarray) -> np.ndarray:
    """Length (...) from the shoulders' middle to the hips' of (..., 33, 2)."""
    upper, lower = landmarks_px[..., SHOULDERS, :].mean(-2), landmarks_px[..., HIPS, :].mean(-2)
    return np.linalg.norm(upper - lower, axis=-1)


def distances(ours_px: np.ndarray, theirs_px: np.ndarray, torso: np.ndarray) -> np.ndarray:
    """Median landmark distance (N, P) in torso lengths between P and N people (., 33, 2);
    landmarks that are NaN in ``theirs_px`` do not count."""
    if not len(ours_px) or not len(theirs_px):
        return np.zeros((len(theirs_px), len(ours_px)))
    apart = np.linalg.norm(theirs_px[:, None] - ours_px[None], axis=-1)
    # Nobody is near to somebody of whom no landmark is known.
    apart = np.where(np.isnan(apart).all(-1, keepdims=True), np.inf, apart)
    return np.nanmedian(apart, axis=-1) / np.fmax(torso, 1e-6)[:, None]


def match(apart: np.ndarray, limit: float = 1.0) -> list[tuple[int, int]]:
    """Pairs (n, p) of rows and columns of ``apart`` (N, P): each at most once, as many as lie
    below ``limit``, together as near as can be (Hungarian assignment; Kuhn, 1955)."""
    allowed = apart < limit
    rows, columns = linear_sum_assignment(np.where(allowed, apart, _FAR))
    return [(int(n), int(p)) for n, p in zip(rows, columns) if allowed[n, p]]


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union of two boolean masks of one shape; NaN where both are empty."""
    union = int((one | two).sum())
    return int((one & two).sum()) / union if union else float("nan")


def accelerations(points: np.ndarray) -> np.ndarray:
    """Lengths (T - 2, ...) of second differences of (T, ..., D) over frames."""
    return np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)


def speeds(points: np.ndarray) -> np.ndarray:
    """Lengths (T - 1, ...) of first differences of (T, ..., D) over frames."""
    return np.linalg.norm(points[1:] - points[:-1], axis=-1)


def lag(ours: np.ndarray, theirs: np.ndarray, reach: int = _LAG_REACH) -> tuple[float, float]:
    """By how many frames signals ``ours`` (T, K) come after ``theirs`` (T, K), and how much they
    are alike then; a lag is worth little where that is not near 1.

    The shift at which they correlate best (Pearson's, pooled over the K signals; pairs with a NaN
    do not count), between whole frames by a parabola through the peak and its neighbours. NaN
    where too little is known or nothing moves.
    """
    shifts = range(-reach, reach + 1)
    found, pairs = np.array([_correlation(ours, theirs, shift) for shift in shifts]).T
    # Signals with gaps: a shift at which few pairs are left is alike by chance.
    found[pairs < _LAG_SHARE * pairs.max()] = np.nan
    if np.isnan(found).all():
        return float("nan"), float("nan")
    peak = int(np.nanargmax(found))
    if not 0 < peak < 2 * reach or np.isnan(found[[peak - 1, peak + 1]]).any():
        return float(peak - reach), float(found[peak])
    before, at, after = found[peak - 1 : peak + 2]
    bend = before - 2 * at + after
    between = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(peak - reach + between), float(at)


def _correlation(ours: np.ndarray, theirs: np.ndarray, shift: int) -> tuple[float, int]:
    """Pearson's correlation of ours[t + shift] with theirs[t], pooled over columns, and of how many
    pairs."""
    count = len(ours) - abs(shift)
    if count < _LAG_LEAST:
        return float("nan"), 0
    a = ours[max(shift, 0) :][:count].astype(np.float64)
    b = theirs[max(-shift, 0) :][:count].astype(np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    enough = known.sum(0) >= _LAG_LEAST
    if not enough.any():
        return float("nan"), 0
    a, b = (np.where(known, x, np.nan)[:, enough] for x in (a, b))
    a, b = a - np.nanmean(a, axis=0), b - np.nanmean(b, axis=0)
    spread = float(np.sqrt(np.nansum(a * a) * np.nansum(b * b)))
    pairs = int(known[:, enough].sum())
    return float(np.nansum(a * b)) / spread if spread > 1e-12 else float("nan"), pairs


def mean(values: np.ndarray) -> float:
    """The mean of what is known; NaN of nothing."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")


def percentile(values: np.ndarray, percent: float) -> float:
    """The percentile of what is known; NaN of nothing."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(np.percentile(known, percent)) if known.size else float("nan")
