"""Read a camera of a calibration file: its lens, and how it stands over the floor.

The format is that of Pose2Sim, Caliscope and anipose: TOML with a table for each camera, in which
``size`` is (width, height) in pixels, ``matrix`` K (3, 3) in pixels, ``rotation`` an axis-angle in
radians and ``translation`` metres, both from the world to the camera (OpenCV's axes). The world's z
axis is up, its origin on the floor, as in Pose2Sim's files. https://github.com/perfanalytics/pose2sim
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.world.camera_pose import CameraPose


@dataclass(frozen=True)
class CalibratedCamera:
    """A camera of a calibration file.

    Attributes:
        fov_deg: Its field of view across the image's longer side, degrees.
        pose: Its height above the floor, pitch and roll.
    """

    fov_deg: float
    pose: CameraPose


def read_calibration(path: Path, name: str | None = None) -> CalibratedCamera:
    """Return a camera of a calibration file.

    Lens distortion is not read: the fit's camera is a pinhole.

    Args:
        path: The file.
        name: The camera: its table's name, or the ``name`` in it. None takes the only one.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file, or has no such camera; the message is one line.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not valid TOML: {str(error).splitlines()[0]}") from None
    cameras = {
        str(table.get("name", key)): (key, table)
        for key, table in tables.items()
        if isinstance(table, dict) and "matrix" in table
    }
    if not cameras:
        raise ValueError("no camera is in it: a table with size, matrix, rotation and translation")
    found = [n for n, (key, _) in cameras.items() if name is None or name in (n, key)]
    if len(found) != 1:
        names = ", ".join(cameras)
        raise ValueError(
            f"there is no camera {name}: {names}" if name else f"name one of its cameras: {names}"
        )
    return _camera(found[0], cameras[found[0]][1])


def _camera(name: str, table: dict[str, Any]) -> CalibratedCamera:
    import numpy as np
    from scipy.spatial.transform import Rotation

    values = {}
    shapes = {"size": (2,), "matrix": (3, 3), "rotation": (3,), "translation": (3,)}
    for key, shape in shapes.items():
        try:
            value = np.asarray(table[key], np.float64)
        except (KeyError, TypeError, ValueError):
            value = np.empty(0)
        if value.shape != shape or not np.isfinite(value).all():
            raise ValueError(f"camera {name}: {key} is not {' x '.join(map(str, shape))} numbers")
        values[key] = value
    width, height = values["size"]
    focal_px = 0.5 * (values["matrix"][0, 0] + values["matrix"][1, 1])
    if focal_px <= 0 or min(width, height) <= 0:
        raise ValueError(f"camera {name}: its size and focal length are above 0")
    fov_deg = math.degrees(2 * math.atan(0.5 * max(width, height) / focal_px))
    # The world's up in the camera's axes, and the camera's centre in the world's.
    turn = Rotation.from_rotvec(values["rotation"]).as_matrix()
    up, centre_m = turn[:, 2], -turn.T @ values["translation"]
    if centre_m[2] <= 0:
        raise ValueError(f"camera {name}: it is not above the floor; is the world's z axis up?")
    # The inverse of `pipeline.world.ground.up_of`.
    pitch_deg = math.degrees(math.asin(min(max(-up[2], -1.0), 1.0)))
    roll_deg = math.degrees(math.atan2(-up[0], -up[1]))
    return CalibratedCamera(fov_deg, CameraPose(float(centre_m[2]), pitch_deg, roll_deg))
