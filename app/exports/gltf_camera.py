"""The camera of a recording as glTF describes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from app.exports.recording import Recording
from pipeline.core.world import World


def camera(recording: Recording) -> dict[str, Any]:
    """Return the camera's lens."""
    height, width = recording.size
    focal_px = recording.intrinsics[1, 1]
    perspective = {
        "yfov": 2 * math.atan(height / (2 * focal_px)),
        "aspectRatio": width / height,
        "znear": 0.01,
    }
    return {"type": "perspective", "perspective": perspective}


def camera_place(world: World) -> dict[str, Any]:
    """Return where a node's camera is and how it is turned; glTF's cameras look along -z."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(world.axes("y") @ np.diag([1.0, -1.0, -1.0]))
    place_m = world.points(np.zeros(3), "y")
    return {"translation": place_m.tolist(), "rotation": turn.as_quat().tolist()}
