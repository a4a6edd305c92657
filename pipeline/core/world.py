"""World axes for files and views: up is up, as far as the camera knows it."""

from __future__ import annotations

from typing import Literal

import numpy as np


def camera_to_world(up: Literal["y", "z"] = "z") -> np.ndarray:
    """Return the rotation (3, 3) float64 from OpenCV's camera axes to those of a right-handed
    world.

    The camera is taken as level, and the world's origin is the camera's centre. Camera x (right)
    stays x. With z up, y is the camera's forward; with y up, z points from the scene to the camera.

    Args:
        up: The world's axis that points up: y as in Blender's BVH, glTF and OpenSim, z as in AMASS.
    """
    rows = {
        "y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    }
    return np.array(rows[up], np.float64)
