"""Compare bodies with a sequence's actors: match them, and keep the errors of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.evaluate.datasets.joint_sets import JointSet
from app.evaluate.datasets.ruler import Points, Ruler
from app.evaluate.datasets.sequence import DatasetSequence
from app.evaluate.metrics import distances, match, procrustes
from app.evaluate.replay import Played, mean_focal_px
from pipeline.core.camera import project
from pipeline.core.skeleton import SMPL_24

_NECK, _HIPS = SMPL_24.index("neck"), list(SMPL_24.hips)
_MM = 1e3


@dataclass(frozen=True, eq=False)
class Errors:
    """One actor's errors on one joint set over N frames, millimetres; NaN where there is none.

    Attributes:
        offsets_mm: From the true joints to ours (N, J, 3), both relative to the set's root.
        aligned_mm: The mean distance after a Procrustes alignment (N,).
        missed_mm: The mean distance if all our joints were at the root (N,): the error of a person
            who is not found.
    """

    offsets_mm: np.ndarray
    aligned_mm: np.ndarray
    missed_mm: np.ndarray

    @classmethod
    def none(cls, frames: int, joints: int) -> Errors:
        """Return the errors of frames that are not compared yet."""
        offsets = np.full((frames, joints, 3), np.nan)
        return cls(offsets, np.full(frames, np.nan), np.full(frames, np.nan))


@dataclass(frozen=True, eq=False)
class Scores:
    """One actor of a sequence over its N frames, compared.

    Attributes:
        played: Which frames were run (N,).
        valid: In which frames the truth counts (N,).
        found: In which of these a body was matched (N,).
        surface_mm: The mean distance of the vertices (N,), relative to the first set's root.
        errors: The errors by the key of a joint set.
    """

    played: np.ndarray
    valid: np.ndarray
    found: np.ndarray
    surface_mm: np.ndarray
    errors: dict[str, Errors]

    @classmethod
    def none(cls, valid: np.ndarray, sets: Sequence[JointSet]) -> Scores:
        """Return the scores of frames that are not compared yet."""
        frames = len(valid)
        errors = {each.key: Errors.none(frames, each.joints) for each in sets}
        played, found = np.zeros(frames, bool), np.zeros(frames, bool)
        return cls(played, valid, found, np.full(frames, np.nan), errors)


def compare_frame(
    played: Played, sequence: DatasetSequence, scores: Sequence[Scores], ruler: Ruler
) -> None:
    """Match one frame's bodies with the sequence's actors in the image, and note their errors.

    An actor and a body belong together where the median distance of their projected joints is
    below the actor's torso length; the assignment has as many pairs as possible, with the least
    sum of distances.

    Args:
        played: The frame and its bodies.
        sequence: The sequence.
        scores: The scores of its actors; they are filled.
        ruler: What is measured.
    """
    frame = played.id
    present = [n for n, actor in enumerate(sequence.actors) if actor.valid[frame]]
    for each in scores:
        each.played[frame] = True
    true_m = np.array([sequence.actors[n].joints_m[frame] for n in present]).reshape(-1, 24, 3)
    true_px = project(true_m, sequence.intrinsics)
    ours_px = project(played.bodies.joints_m.astype(np.float64), played.intrinsics)
    torso_px = _torso_px(true_m, true_px, mean_focal_px(sequence.intrinsics))
    rows = dict(match(distances(ours_px, true_px, torso_px)))
    for place, n in enumerate(present):
        theirs = ruler.truth(sequence.actors[n], frame)
        ours = ruler.ours(played.bodies, rows[place]) if place in rows else None
        _note(scores[n], frame, ours, theirs, ruler.sets)


def _torso_px(joints_m: np.ndarray, joints_px: np.ndarray, focal_px: float) -> np.ndarray:
    """Return the torso lengths (P,) in pixels from the neck to the hips. A torso that points at the
    camera counts as half of an upright one, or its person could not be matched."""
    seen, length_m = (
        np.linalg.norm(points[:, _NECK] - points[:, _HIPS].mean(1), axis=-1)
        for points in (joints_px, joints_m)
    )
    upright = focal_px * length_m / np.maximum(joints_m[:, 0, 2], 1e-6)
    return np.maximum(seen, 0.5 * upright)


def _note(
    scores: Scores, frame: int, ours: Points | None, theirs: Points, sets: Sequence[JointSet]
) -> None:
    for each in sets:
        errors, true_m = scores.errors[each.key], theirs.joints[each.key]
        true_at_root = each.aligned(true_m, true_m)
        errors.missed_mm[frame] = _mean_mm(true_at_root)
        if ours is not None:
            our_m = ours.joints[each.key]
            errors.offsets_mm[frame] = _MM * (each.aligned(our_m, our_m) - true_at_root)
            errors.aligned_mm[frame] = _mean_mm(procrustes(our_m, true_m) - true_m)
    scores.found[frame] = ours is not None
    if ours is not None and ours.vertices_m is not None and theirs.vertices_m is not None:
        first = sets[0]
        our_m = first.aligned(ours.vertices_m, ours.joints[first.key])
        true_m = first.aligned(theirs.vertices_m, theirs.joints[first.key])
        scores.surface_mm[frame] = _mean_mm(our_m - true_m)


def _mean_mm(offsets_m: np.ndarray) -> float:
    return float(_MM * np.linalg.norm(offsets_m, axis=-1).mean())
