"""The markers of TRC and C3D files: BlazePose's landmarks and SMPL's joints of the fitted body."""

from __future__ import annotations

import numpy as np

from app.exports.recording import Track
from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES
from pipeline.core.world import Up, World

MARKERS = (*LANDMARK_NAMES, *(f"smpl_{name}" for name in JOINT_NAMES))
"""BlazePose's own names, which Pose2Sim's OpenSim model for BlazePose has too. SMPL's joints lie
elsewhere in the body, so they have other names."""


def markers_mm(track: Track, world: World, up: Up) -> np.ndarray:
    """Return the markers (steps, M, 3) in millimetres at every step of even time.

    A step in which the person was not seen is NaN.

    Args:
        track: The person.
        world: The axes.
        up: The world's axis that points up.
    """
    known = np.concatenate((track.landmarks_m, track.joints_m), 1).astype(np.float64)
    out = np.full((len(track.steps), len(MARKERS), 3), np.nan)
    out[track.step - track.step[0]] = 1000 * world.points(known, up)
    return out
