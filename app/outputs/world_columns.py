"""The world of a run's rows: gravity and the floor of all of them, and the columns in its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.outputs.base import OutputError
from app.outputs.spool import ColumnSpool, Derived
from pipeline.core.user_file import reading
from pipeline.core.world import World
from pipeline.world.camera_pose import CameraPose
from pipeline.world.ground import Ground, estimate_ground, sample_rows

GIVEN = "given_camera"
"""The array of a file (3,) float64: the camera's height in metres, pitch and roll in degrees, as
they were given; NaN where they were not."""
WORLD_ROWS = {
    "world_joints_m": (np.float32, (24, 3)),
    "world_transl_m": (np.float32, (3,)),
    "world_global_orient": (np.float32, (3,)),
}
"""The columns of `--poses` in the world's axes, which are made when the file is."""
TURN = "camera_turn"
"""The column (N, 3) float32 of a camera that turned: the rotation, axis-angle in radians, from the
camera's axes in the row's frame to those of its reference, the first frame after the last cut."""
_NEEDED = ("joints_m", "joint_visibility", "track", "pts_s")


def ground_of(arrays: Mapping[str, Any]) -> Ground:
    """Return gravity and the floor of rows, in memory that does not grow with them.

    Args:
        arrays: Columns of `--poses` (``joints_m``, ``joint_visibility``, ``track``, ``pts_s``) by
            rising frame, perhaps with ``given_camera`` and ``camera_turn``.
    """
    rows = sample_rows(len(arrays["track"]))
    given = CameraPose()
    if GIVEN in arrays:
        given = CameraPose.from_array(np.asarray(arrays[GIVEN], np.float64).reshape(3))
    joints_m, visibility, track, pts_s = (np.asarray(arrays[name][rows]) for name in _NEEDED)
    if TURN in arrays:
        joints_m = steady_points(joints_m, np.asarray(arrays[TURN][rows]))
    return estimate_ground(joints_m, visibility, track, pts_s, given)


def steady_points(points_m: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return points (N, K, 3) in the axes of the reference of a camera that turned.

    Args:
        points_m: (N, K, 3) in the camera's axes of each row's frame.
        turn: (N, 3) the column `TURN`.
    """
    from scipy.spatial.transform import Rotation

    rotations = Rotation.from_rotvec(turn).as_matrix()
    return np.asarray(np.einsum("nij,nkj->nki", rotations, points_m))


def ground_of_spool(columns: ColumnSpool) -> Ground:
    """Return gravity and the floor of a run's rows. Raises OutputError where they are damaged."""
    with reading(columns.folder, " has no rows of a run", OutputError):
        names = (*_NEEDED, *({TURN} & set(columns.names)))
        return ground_of({**columns.extra, **{name: columns.read(name) for name in names}})


def save_with_world(columns: ColumnSpool, path: Path) -> None:
    """Write rows of `--poses` as its file, with the columns in the world's axes.

    The file also gets ``world_rotation`` (3, 3) and ``world_origin_m`` (3,) (`World`), ``world_up``
    and ``ground``, how each is known.

    Raises:
        OutputError: It cannot be written, or the rows are damaged.
    """
    ground = ground_of_spool(columns)
    world = ground.world
    source = {name: columns.read(name) for name in ("joints_m", "transl_m", "global_orient")}
    turn = columns.read(TURN) if TURN in columns.names else None

    def world_at(rows: slice) -> World:
        return world if turn is None else world.turned(turn[rows])

    def joints_m(rows: slice) -> np.ndarray:
        return world_at(rows).points(source["joints_m"][rows])

    def body(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        orient, transl_m = source["global_orient"][rows], source["transl_m"][rows]
        return world_at(rows).body(orient, transl_m, source["joints_m"][rows, 0])

    make: dict[str, Callable[[slice], np.ndarray]] = {
        "world_joints_m": joints_m,
        "world_transl_m": lambda rows: body(rows)[1],
        "world_global_orient": lambda rows: body(rows)[0],
    }
    derived = {name: Derived(*WORLD_ROWS[name], make[name]) for name in WORLD_ROWS}
    facts: dict[str, np.ndarray | np.generic] = {
        "world_rotation": world.rotation,
        "world_origin_m": world.origin_m,
        "world_up": np.str_("z"),
        "ground": np.str_(ground.source),
    }
    columns.save(path, derived, facts)
