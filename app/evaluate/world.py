"""Metrics in a world that stands still: functions from arrays to numbers. NaN is unknown.

A world is right-handed with z up and the floor at z = 0, metres. Paths are (T, ...) over frames
that follow each other; a frame in which the person is not known is NaN.
"""

from __future__ import annotations

import numpy as np

SEGMENT = 100
"""Frames that are aligned together, as in WHAM and GVHMR (see `world_errors`)."""
LEAST_PATH_M = 0.5
"""A root that moves less than this has no drift in percent of its path."""
STILL_M = 0.002
"""A person stands still where no joint moves farther than this from a frame to the next."""
STILL_FRAMES = 10
"""Stillness counts from this number of steps on: a turning point of a motion is not stillness."""
STANDS_M = 0.005
"""A part of a foot stands where it moves less than this from a frame to the next."""


def similarity(
    ours: np.ndarray, theirs: np.ndarray, scaled: bool = True
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the transform that takes points to others with the least sum of squares.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    PAMI 1991, equations 40 to 42.

    Args:
        ours: Points (K, 3), metres; those with a NaN in one of the sets are left out.
        theirs: The points to align to (K, 3), metres.
        scaled: Whether the scale is free; else it is 1.

    Returns:
        The scale, the rotation (3, 3) and the offset (3,): ``scale * rotation @ ours + offset``.
        All are NaN if fewer than three points are known.
    """
    known = np.isfinite(ours).all(-1) & np.isfinite(theirs).all(-1)
    if known.sum() < 3:
        return float("nan"), np.full((3, 3), np.nan), np.full(3, np.nan)
    a, b = ours[known].astype(np.float64), theirs[known].astype(np.float64)
    middle_a, middle_b = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - middle_b).T @ (a - middle_a))
    # Without this sign a mirrored path could align perfectly.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    spread = float(((a - middle_a) ** 2).sum())
    scale = float((s * signs).sum()) / max(spread, 1e-12) if scaled else 1.0
    return scale, rotation, middle_b - scale * rotation @ middle_a


def rigid_transforms(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the rotation (N, 3, 3) and the offset (N, 3) that take its points to
    others.

    Args:
        ours: Points (N, K, 3), metres.
        theirs: The points to align to (N, K, 3), metres.
    """
    found = [similarity(a, b, scaled=False) for a, b in zip(ours, theirs)]
    rotations = np.array([rotation for _, rotation, _ in found]).reshape(-1, 3, 3)
    return rotations, np.array([offset for _, _, offset in found]).reshape(-1, 3)


def world_errors(
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    first: int | None = None,
    scaled: bool = True,
    segment: int = SEGMENT,
) -> np.ndarray:
    """Return the mean joint error of every frame after an alignment of each segment of frames.

    With ``first=2`` the mean is W-MPJPE, with ``first=None`` WA-MPJPE, as Ye et al. (SLAHMR, CVPR
    2023), Shin et al. (WHAM, CVPR 2024) and Shen et al. (GVHMR, SIGGRAPH Asia 2024) use them:
    segments of 100 frames, a similarity transform by all joints of the frames that are aligned.

    Args:
        ours: Joints (T, K, 3), metres.
        theirs: True joints (T, K, 3), metres.
        first: How many known frames of the segment are aligned; None for all.
        scaled: Whether the alignment has a scale; without, an error of the person's size counts.
        segment: The number of frames of a segment.

    Returns:
        Errors (T,), metres; NaN where nothing is known.
    """
    errors = np.full(len(ours), np.nan)
    for start in range(0, len(ours), segment):
        part = slice(start, start + segment)
        a, b = ours[part], theirs[part]
        each = np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
        known = np.flatnonzero(each.any(-1))
        # An alignment of all that there is says nothing about the way.
        if len(known) < 3:
            continue
        used = known[:first]
        scale, rotation, offset = similarity(
            a[used].reshape(-1, 3), b[used].reshape(-1, 3), scaled=scaled
        )
        distance = np.linalg.norm(scale * a @ rotation.T + offset - b, axis=-1)
        count = each.sum(-1)
        total = np.where(each, distance, 0.0).sum(-1)
        errors[part] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return errors


def path_m(points: np.ndarray) -> float:
    """Return the length of the way through the known ones of points (T, 3), metres."""
    known = points[np.isfinite(points).all(-1)]
    return float(np.linalg.norm(np.diff(known, axis=0), axis=-1).sum())


def root_drift_pct(ours: np.ndarray, theirs: np.ndarray, scaled: bool = False) -> float:
    """Return the root translation error (RTE) in percent of the true path's length.

    The whole path is aligned by a rigid transform (Shin et al., WHAM, CVPR 2024: "RTE"); the error
    is the mean distance from the true root.

    Args:
        ours: The root (T, 3), metres.
        theirs: The true root (T, 3), metres.
        scaled: Whether the alignment has a scale too.

    Returns:
        Percent; NaN for a path shorter than ``LEAST_PATH_M``.
    """
    known = np.isfinite(ours).all(-1) & np.isfinite(theirs).all(-1)
    length_m = path_m(theirs[known])
    if known.sum() < 3 or length_m < LEAST_PATH_M:
        return float("nan")
    scale, rotation, offset = similarity(ours, theirs, scaled=scaled)
    apart = scale * ours[known] @ rotation.T + offset - theirs[known]
    return 100 * float(np.linalg.norm(apart, axis=-1).mean()) / length_m


def sliding_m(ours: np.ndarray, theirs: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """Return how far parts of feet move from a frame to the next while the true ones stand.

    As the foot sliding of He et al. (CVPR 2022) and WHAM: the displacement in frames of contact.

    Args:
        ours: Points of the feet (T, K, 3), metres.
        theirs: The true ones (T, K, 3), metres.
        contact: Which true points belong to a foot that stands (T, K), bool. A point that moves
            all the same, such as a heel that rises over its toes, does not count.

    Returns:
        Distances (M,), metres; only those that are known.
    """
    stands = contact[1:] & contact[:-1]
    with np.errstate(invalid="ignore"):  # Comparing NaN: false, as it should be.
        stands = stands & (np.linalg.norm(np.diff(theirs, axis=0), axis=-1) < STANDS_M)
    moved = np.linalg.norm(np.diff(ours, axis=0), axis=-1)[stands]
    return moved[np.isfinite(moved)]


def gravity_error_deg(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the angles (N,) between up directions (N, 3) and the true ones (N, 3), degrees.

    The vectors need not have length 1.
    """
    # Of sine and cosine, which is exact for small angles too.
    sine = np.linalg.norm(np.cross(ours, theirs), axis=-1)
    return np.degrees(np.arctan2(sine, (ours * theirs).sum(-1)))


def jitter(points: np.ndarray, fps: float) -> np.ndarray:
    """Return the sizes (T - 3, ...) of the third derivative of points (T, ..., 3), m/s³.

    Yi et al., TransPose, SIGGRAPH 2021; papers report the mean in units of 10 m/s³.

    Args:
        points: Points, metres.
        fps: Frames a second.
    """
    return np.linalg.norm(np.diff(points, n=3, axis=0), axis=-1) * fps**3


def still_steps(points: np.ndarray) -> np.ndarray:
    """Return the steps (T - 1,) from a frame to the next in which a person stands still, bool.

    No joint moves farther than ``STILL_M``, for ``STILL_FRAMES`` steps in a row or more.

    Args:
        points: True joints (T, K, 3), metres.
    """
    moved = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    still = np.append((moved < STILL_M).all(-1), False)
    out, begun = np.zeros(len(still), bool), None
    for step, calm in enumerate(still):
        if calm and begun is None:
            begun = step
        elif not calm and begun is not None:
            out[begun:step] = step - begun >= STILL_FRAMES
            begun = None
    return out[: max(len(points) - 1, 0)]
