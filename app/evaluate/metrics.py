"""The metrics: functions from arrays to numbers. NaN stands for an unknown value.

Landmarks are BlazePose's 33; *limbs* are twelve of them: shoulders, elbows, wrists, hips, knees and
ankles. Lengths are returned in the unit of the arguments.
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
"""The cost of a pair that must not be matched."""
_LAG_REACH = 6
"""The largest lag that is tried, in frames."""
_LAG_LEAST = 8
"""The least number of samples for a correlation."""
_LAG_SHARE = 0.7
"""A shift counts only with this share of the samples that the best covered shift has."""


def from_hips(landmarks: np.ndarray) -> np.ndarray:
    """Return landmarks (..., 33, D) relative to the middle of the hips."""
    return landmarks - landmarks[..., HIPS, :].mean(-2, keepdims=True)


def limb_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the distances of the twelve limbs, with the middles of the hips aligned.

    Their mean is the MPJPE.

    Args:
        ours: Landmarks (..., 33, 3).
        theirs: True landmarks (..., 33, 3).

    Returns:
        Distances (..., 12).
    """
    return np.linalg.norm(_limb_offsets(ours, theirs), axis=-1)


def limb_depth_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the part of ``limb_errors`` along z, the camera's axis: (..., 12)."""
    return np.abs(_limb_offsets(ours, theirs)[..., 2])


def _limb_offsets(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (from_hips(ours) - from_hips(theirs))[..., LIMBS, :]


def procrustes(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Align points to others by the best similarity transform, in the least-squares sense.

    The transform is a rotation, a scale and a translation, never a reflection (Umeyama, PAMI 1991).

    Args:
        ours: Points (K, 3).
        theirs: The points to align to (K, 3).

    Returns:
        The aligned points (K, 3).
    """
    a, b = ours - ours.mean(0), theirs - theirs.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    # Without this sign, a mirrored body could align perfectly.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((s * signs).sum()) / max(float((a**2).sum()), 1e-12)
    return scale * a @ rotation.T + theirs.mean(0)


def procrustes_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean distance of the limbs after ``procrustes`` (PA-MPJPE).

    Args:
        ours: Landmarks (33, 3).
        theirs: True landmarks (33, 3).

    Returns:
        The mean distance; NaN if fewer than six limbs are known.
    """
    a, b = ours[LIMBS], theirs[LIMBS]
    known = np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
    # A similarity transform has seven degrees of freedom: few points align whatever the pose.
    if known.sum() < 6:
        return float("nan")
    a, b = a[known].astype(np.float64), b[known].astype(np.float64)
    return float(np.linalg.norm(procrustes(a, b) - b, axis=-1).mean())


def surface_distance(ours: np.ndarray, theirs: np.ndarray, step: int = 4) -> float:
    """Return the chamfer distance of two surfaces: the mean distance to the nearest vertex of the
    other one, averaged over both directions.

    Args:
        ours: Vertices (V, 3).
        theirs: Vertices (W, 3).
        step: Distances are taken from every n-th vertex, to all vertices.
    """
    # Both directions, so that neither a missing nor an additional limb goes unnoticed.
    forth = cKDTree(theirs).query(ours[::step])[0].mean()
    back = cKDTree(ours).query(theirs[::step])[0].mean()
    return float(0.5 * (forth + back))


def torso_px(landmarks_px: np.ndarray) -> np.ndarray:
    """Return the torso lengths (...) of landmarks (..., 33, 2): from the middle of the shoulders to
    the middle of the hips."""
    upper, lower = landmarks_px[..., SHOULDERS, :].mean(-2), landmarks_px[..., HIPS, :].mean(-2)
    return np.linalg.norm(upper - lower, axis=-1)


def distances(ours_px: np.ndarray, theirs_px: np.ndarray, torso: np.ndarray) -> np.ndarray:
    """Return the median landmark distances between people, in torso lengths.

    Args:
        ours_px: The landmarks of P people (P, 33, 2).
        theirs_px: The true landmarks of N people (N, 33, 2); NaN ones are left out.
        torso: The torso lengths (N,) of the true people, pixels.

    Returns:
        Distances (N, P).
    """
    if not len(ours_px) or not len(theirs_px):
        return np.zeros((len(theirs_px), len(ours_px)))
    distance_px = np.linalg.norm(theirs_px[:, None] - ours_px[None], axis=-1)
    # A person without any known landmark must not be matched: the median of NaN would warn.
    distance_px = np.where(np.isnan(distance_px).all(-1, keepdims=True), np.inf, distance_px)
    # The median, so that a limb with a large error does not undo a match.
    return np.nanmedian(distance_px, axis=-1) / np.fmax(torso, 1e-6)[:, None]


def match(distance: np.ndarray, limit: float = 1.0) -> list[tuple[int, int]]:
    """Match rows with columns by the Hungarian algorithm (Kuhn, 1955).

    Each row and column is used at most once. There are as many pairs below the limit as possible,
    with the least sum of distances.

    Args:
        distance: Distances (N, P).
        limit: Pairs that are this far apart or farther are not matched.

    Returns:
        Pairs of a row and a column.
    """
    allowed = distance < limit
    # A large cost and not infinity, with which no assignment might exist.
    rows, columns = linear_sum_assignment(np.where(allowed, distance, _FAR))
    return [(int(n), int(p)) for n, p in zip(rows, columns) if allowed[n, p]]


def idf1(people: np.ndarray, tracks: np.ndarray, true_count: int, found_count: int) -> float:
    """Return IDF1 of matched person-frames (Ristani et al., ECCV Workshops 2016): 2 IDTP / (rows of
    the truth + bodies), with the one-to-one assignment of tracks to people that has the largest
    IDTP.

    Args:
        people: The person (K,) of each matched pair.
        tracks: Its track (K,).
        true_count: The person-frames of the truth.
        found_count: The bodies.

    Returns:
        0 to 1; NaN without people and bodies.
    """
    if not true_count + found_count:
        return float("nan")
    own, person = np.unique(people, return_inverse=True)
    kinds, track = np.unique(tracks, return_inverse=True)
    shared = np.zeros((len(own), len(kinds)))
    np.add.at(shared, (person, track), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return 2 * float(shared[rows, columns].sum()) / (true_count + found_count)


def iou(one: np.ndarray, two: np.ndarray) -> float:
    """Return the intersection over union of two boolean masks of the same shape; NaN if both are
    empty."""
    union = int((one | two).sum())
    return int((one & two).sum()) / union if union else float("nan")


def accelerations(points: np.ndarray) -> np.ndarray:
    """Return the lengths (T - 2, ...) of the second differences of points (T, ..., D) over
    frames."""
    return np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)


def speeds(points: np.ndarray) -> np.ndarray:
    """Return the lengths (T - 1, ...) of the first differences of points (T, ..., D) over
    frames."""
    return np.linalg.norm(points[1:] - points[:-1], axis=-1)


def lag(ours: np.ndarray, theirs: np.ndarray, reach: int = _LAG_REACH) -> tuple[float, float]:
    """Return the lag of signals behind others, in frames, and their correlation at that lag.

    The lag is the shift with the highest Pearson correlation, pooled over the K signals; pairs with
    a NaN are left out. Between whole frames it is interpolated by a parabola through the peak and
    its neighbours. A lag means little unless the correlation is near 1.

    Args:
        ours: Signals (T, K).
        theirs: Signals (T, K).
        reach: The largest lag that is tried, in frames.

    Returns:
        The lag and the correlation; both NaN if too little is known or nothing moves.
    """
    shifts = range(-reach, reach + 1)
    found, pairs = np.array([_correlation(ours, theirs, shift) for shift in shifts]).T
    # Signals have gaps: at a shift that leaves few pairs, a high correlation is chance.
    found[pairs < _LAG_SHARE * pairs.max()] = np.nan
    if np.isnan(found).all():
        return float("nan"), float("nan")
    peak = int(np.nanargmax(found))
    # At the end of the range the peak has one neighbour only.
    if not 0 < peak < 2 * reach or np.isnan(found[[peak - 1, peak + 1]]).any():
        return float(peak - reach), float(found[peak])
    before, at, after = found[peak - 1 : peak + 2]
    bend = before - 2 * at + after
    # A peak bends down; a flat top has no place between frames.
    between = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(peak - reach + between), float(at)


def _correlation(ours: np.ndarray, theirs: np.ndarray, shift: int) -> tuple[float, int]:
    """Return Pearson's correlation of ours[t + shift] with theirs[t], pooled over columns, and the
    number of pairs."""
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
    # Nothing moves: a correlation would divide rounding errors.
    return float(np.nansum(a * b)) / spread if spread > 1e-12 else float("nan"), pairs


def mean(values: np.ndarray) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")


def percentile(values: np.ndarray, percent: float) -> float:
    """Return a percentile of the finite values; NaN if there are none."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(np.percentile(known, percent)) if known.size else float("nan")
