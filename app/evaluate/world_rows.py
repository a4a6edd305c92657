"""The figures in the world: errors of whole paths, feet on the floor, gravity, jitter, stillness.

Bodies come into the world by the app's own world where it has one, and else from the camera's axes
by the true camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.evaluate import metrics, world
from app.evaluate.metrics import HIPS, LIMBS, mean
from app.evaluate.motion import chain
from app.evaluate.outcome import NAN, Outcome, Row

_FEET = [29, 31, 30, 32]
"""The landmarks that touch the floor: left heel, left toe, right heel, right toe."""
_FOOT_OF = [0, 0, 1, 1]
"""Their feet in `Truth.foot_contact`."""


@dataclass(frozen=True, eq=False)
class _Path:
    """One person over T frames in the world: ``ours`` and ``theirs`` (T, 33, 3), landmarks, metres;
    ``contact`` (T, 2), which feet stand, bool."""

    ours: np.ndarray
    theirs: np.ndarray
    contact: np.ndarray


def world_rows(outcome: Outcome) -> tuple[list[Row], list[str]]:
    """Return the figures in the world and a remark on them; empty if the truth has no world."""
    truth = outcome.truth
    if truth.camera is None or truth.landmarks_m is None or not len(outcome.paired):
        return [], []
    own = bool(np.isfinite(outcome.stack("world_m")).all())
    paths = list(_paths(outcome, own))
    rows = [*_error_rows(paths), *_drift_rows(paths)]
    if truth.foot_contact is not None:
        rows += _foot_rows(paths)
    if own:
        true_up = truth.camera.up(truth.frame[outcome.paired])
        angle = world.gravity_error_deg(outcome.stack("up"), true_up)
        rows.append(Row("gravity_deg", "direction of gravity", "°", mean(angle)))
    rows += _smoothness_rows(paths, truth.fps)
    where = "the app's own" if own else "that of the true camera"
    return rows, [f"the world: {where}"]


def _paths(outcome: Outcome, own: bool) -> Iterator[_Path]:
    truth, rows = outcome.truth, outcome.paired
    camera = truth.camera
    assert camera is not None
    assert truth.landmarks_m is not None
    frame = truth.frame[rows]
    contact = np.zeros((len(truth.frame), 2)) if truth.foot_contact is None else truth.foot_contact
    # Frames without a body too: the true path has no gap there.
    every = np.flatnonzero(np.isin(truth.frame, [tally.frame for tally in outcome.tallies]))
    theirs = camera.to_world(truth.landmarks_m[every], truth.frame[every])
    ours = outcome.stack("world_m") if own else camera.to_world(outcome.stack("mesh_m"), frame)
    for person in np.unique(truth.person[rows]):
        # As numbers: NaN where the person has no row.
        stands = chain(outcome, person, contact[every].astype(float), every)
        yield _Path(
            chain(outcome, person, ours, rows),
            chain(outcome, person, theirs, every),
            stands == 1,
        )


def _error_rows(paths: list[_Path]) -> list[Row]:
    """Return W-MPJPE and WA-MPJPE of the 12 limbs, with and without scale."""
    rows = []
    for key, first, label in (
        ("w_mpjpe", 2, "in the world, the first two frames aligned (W-MPJPE)"),
        ("wa_mpjpe", None, "in the world, all frames aligned (WA-MPJPE)"),
    ):
        for end, scaled in (("", True), ("_rigid", False)):
            errors = [
                world.world_errors(
                    path.ours[:, LIMBS], path.theirs[:, LIMBS], first=first, scaled=scaled
                )
                for path in paths
            ]
            shown = label if scaled else "  aligned without scale"
            rows.append(Row(f"{key}{end}_mm", shown, "mm", 1e3 * mean(np.concatenate(errors))))
    return rows


def _drift_rows(paths: list[_Path]) -> list[Row]:
    """Return the root translation error; people who hardly move have none."""
    roots = [(p.ours[:, HIPS].mean(1), p.theirs[:, HIPS].mean(1)) for p in paths]
    drifts = [
        np.array([world.root_drift_pct(*pair, scaled=s) for pair in roots]) for s in (False, True)
    ]
    return [
        Row("rte_pct", "root drift over the path (RTE)", "%", mean(drifts[0])),
        Row("rte_scaled_pct", "  aligned with scale", "%", mean(drifts[1])),
    ]


def _foot_rows(paths: list[_Path]) -> list[Row]:
    """Return how far feet slide and how far from their height they are, while they stand."""
    slides: list[list[np.ndarray]] = [[], []]
    heights, motions = [], []
    for path in paths:
        stands = path.contact[:, _FOOT_OF]
        theirs = path.theirs[:, _FEET]
        for k, points in enumerate((path.ours, path.theirs)):
            slides[k].append(world.sliding_m(points[:, _FEET], theirs, stands))
        offset = (path.ours[:, _FEET, 2] - theirs[..., 2])[stands]
        heights.append(np.abs(offset))
        # For each person: an error of their size puts them above or below the floor.
        motions.append(np.abs(offset - mean(offset)))
    slide = [1e3 * mean(np.concatenate(part)) for part in slides]
    height, motion = (1e2 * mean(np.concatenate(part)) for part in (heights, motions))
    return [
        Row("foot_slide_mm", "standing feet slide", "mm/frame", slide[0], NAN, slide[1]),
        Row("foot_height_cm", "standing feet's height, error", "cm", height),
        Row("foot_height_motion_cm", "  less its mean offset", "cm", motion),
    ]


def _smoothness_rows(paths: list[_Path], fps: float | None) -> list[Row]:
    """Return jitter, and the noise of people who stand still."""
    pairs = [[path.ours[:, LIMBS] for path in paths], [path.theirs[:, LIMBS] for path in paths]]
    # Only where both are known, so that the figures can be compared.
    known = [np.isfinite(a) & np.isfinite(b) for a, b in zip(*pairs)]
    ours, theirs = ([np.where(k, a, np.nan) for k, a in zip(known, part)] for part in pairs)
    still = [world.still_steps(path.theirs[:, LIMBS]) for path in paths]
    rows = []
    if fps is not None:
        sizes = [
            mean(np.concatenate([world.jitter(points, fps).ravel() for points in part])) / 10
            for part in (ours, theirs)
        ]
        label = "jitter, third derivative"
        rows.append(Row("jitter", label, "10 m/s³", sizes[0], NAN, sizes[1], "reference"))
    noise = [
        1e3
        * mean(np.concatenate([metrics.speeds(a)[calm].ravel() for a, calm in zip(part, still)]))
        for part in (ours, theirs)
    ]
    label = "noise of people who stand still"
    rows.append(Row("still_mm", label, "mm/frame", noise[0], NAN, noise[1]))
    return rows
