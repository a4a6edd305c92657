"""The figures of a dataset: of one sequence or of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.evaluate.datasets.joint_sets import JointSet
from app.evaluate.datasets.scores import Errors, Scores
from app.evaluate.figures import time_rows
from app.evaluate.metrics import accelerations, mean
from app.evaluate.outcome import NAN, Row
from app.evaluate.replay import Timing

FPS = 30.0
"""The pictures a second of both datasets."""
_TO_M_S2 = FPS**2 / 1e3
"""From millimetres a frame squared to metres a second squared."""


def rows_of(
    scores: Sequence[Scores], sets: Sequence[JointSet], timings: Sequence[Timing]
) -> list[Row]:
    """Return the figures of actors: means over all their person-frames, as the field's papers take
    them, and not over sequences.

    Args:
        scores: The actors of the sequences.
        sets: The joint sets.
        timings: The times of the sequences.
    """
    frames = sum(sum(timing.frames) for timing in timings)
    rows = [Row("frames", "frames", "", frames), *_presence_rows(scores)]
    for each in sets:
        rows += _joint_rows(each, scores)
    surface = [one.surface_mm for one in scores]
    if any(np.isfinite(part).any() for part in surface):
        label = f"6890 vertices, {sets[0].label.split(', ')[1]} (PVE)"
        rows.append(Row("pve_mm", label, "mm", mean(np.concatenate(surface))))
    total = Timing(*(sum((getattr(t, name) for t in timings), []) for name in vars(Timing())))
    speed = Row("fps", "perceive and fit, one after the other", "frames/s", total.fps)
    return [*rows, *time_rows(total.perceive_ms, total.fit_ms), speed]


def _presence_rows(scores: Sequence[Scores]) -> list[Row]:
    counted = sum(int((one.played & one.valid).sum()) for one in scores)
    found = sum(int(one.found.sum()) for one in scores)
    left_out = sum(int((one.played & ~one.valid).sum()) for one in scores)
    return [
        Row("person_frames", "person-frames in the truth", "", counted),
        Row("left_out", "  left out: not valid in the dataset", "", left_out),
        Row("matched", "  matched with a body", "", found),
        Row("recall_pct", "  recall", "%", 100.0 * found / counted if counted else NAN),
    ]


def _joint_rows(joints: JointSet, scores: Sequence[Scores]) -> list[Row]:
    errors = [one.errors[joints.key] for one in scores]
    distance_mm = np.concatenate([_distance_mm(each) for each in errors])
    aligned_mm = np.concatenate([each.aligned_mm for each in errors])
    missed_mm = np.concatenate([each.missed_mm for each in errors])
    with_missed = np.where(np.isfinite(distance_mm), distance_mm, missed_mm)
    acceleration = np.concatenate(
        [accelerations(each.offsets_mm).mean(-1) for each in errors if len(each.offsets_mm) > 2]
        or [np.zeros(0)]
    )
    key = joints.key
    return [
        Row(f"mpjpe_{key}_mm", f"{joints.label} (MPJPE)", "mm", mean(distance_mm)),
        Row(f"pa_mpjpe_{key}_mm", "  after Procrustes (PA-MPJPE)", "mm", mean(aligned_mm)),
        Row(f"mpjpe_all_{key}_mm", "  MPJPE, missed people at the root", "mm", mean(with_missed)),
        Row(f"accel_{key}", "  acceleration error", "m/s²", _TO_M_S2 * mean(acceleration)),
    ]


def _distance_mm(errors: Errors) -> np.ndarray:
    """Return the mean distance of the joints in each frame (N,); NaN without a body."""
    return np.linalg.norm(errors.offsets_mm, axis=-1).mean(-1)
