"""The world of a `--poses` file: its own, or the one that its rows tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from app.outputs.world_columns import ground_of, steady_points
from pipeline.core.world import World


def world_of(arrays: Mapping[str, Any]) -> tuple[World, str]:
    """Return the file's world and how it is known; of a file without one, that of its rows."""
    if "world_rotation" in arrays:
        world = World(
            np.asarray(arrays["world_rotation"], np.float64),
            np.asarray(arrays["world_origin_m"], np.float64),
        )
        return world, str(arrays.get("ground", ""))
    ground = ground_of(arrays)
    return ground.world, ground.source


def steady(values: Mapping[str, np.ndarray], turn: np.ndarray) -> dict[str, np.ndarray]:
    """Return a track's arrays in the axes of the reference of a camera that turned (`TURN`)."""
    from scipy.spatial.transform import Rotation

    orient = Rotation.from_rotvec(turn) * Rotation.from_rotvec(values["global_orient"])
    points = {name: steady_points(values[name], turn) for name in ("joints_m", "landmarks_m")}
    return {"global_orient": orient.as_rotvec(), **points}


def check_world(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError for a world that `--poses` would not have written."""
    rotation, origin_m = arrays["world_rotation"], arrays.get("world_origin_m", np.zeros(0))
    if np.shape(rotation) != (3, 3) or np.shape(origin_m) != (3,):
        raise ValueError("world_rotation and world_origin_m are no rotation and place")
    known = np.isfinite(rotation).all() and np.isfinite(origin_m).all()
    if not known or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6:
        raise ValueError("world_rotation is no rotation")
