"""The true camera of a clip in its world, still or moving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_Y_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera over F frames, in a world with z up and its floor at z = 0, metres.

    A camera that stands still has one frame, which holds for all.

    Attributes:
        rotation: Rotations (F, 3, 3) from the camera's axes to the world's.
        position_m: The camera's centre (F, 3) in the world.
    """

    rotation: np.ndarray
    position_m: np.ndarray

    def to_world(self, points_m: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Return points in the world.

        Args:
            points_m: Points (N, K, 3) in the camera's axes, metres.
            frame: The frame (N,) of each row.
        """
        at = self._at(frame)
        turned = points_m @ self.rotation[at].swapaxes(-1, -2)
        return np.asarray(turned + self.position_m[at][:, None])

    def up(self, frame: np.ndarray) -> np.ndarray:
        """Return the world's up direction (N, 3) in the camera's axes of frames (N,)."""
        return np.asarray(self.rotation[self._at(frame)][:, 2])

    def _at(self, frame: np.ndarray) -> np.ndarray:
        return np.minimum(frame, len(self.rotation) - 1)


def camera_path(arrays: Mapping[str, np.ndarray], frames: int | None) -> CameraPath | None:
    """Return the camera of a render's truth; None where the truth has none.

    Args:
        arrays: The arrays of the file. ``camera_rotation`` (F, 3, 3) from the camera to a world
            with z up and ``camera_position_m`` (F, 3); or, of a camera that stands still,
            ``camera_rotation`` (3, 3) and ``camera_translation_m`` (3,) from a world with y up to
            the camera.
        frames: The number of frames of the clip, if known.

    Raises:
        ValueError: The arrays have other shapes, or hold no rotation.
    """
    if "camera_rotation" not in arrays:
        return None
    rotation = np.asarray(arrays["camera_rotation"], np.float64)
    if "camera_position_m" in arrays:
        position_m = np.asarray(arrays["camera_position_m"], np.float64)
        wanted = (len(position_m), 3, 3)
        if position_m.ndim != 2 or rotation.shape != wanted or not len(position_m):
            raise ValueError(f"camera_rotation has the shape {rotation.shape}, not (frames, 3, 3)")
        if len(position_m) not in (1, frames) and frames is not None:
            raise ValueError(f"camera_position_m has {len(position_m)} frames, not {frames}")
    elif "camera_translation_m" in arrays:
        translation_m = np.asarray(arrays["camera_translation_m"], np.float64)
        if rotation.shape != (3, 3) or translation_m.shape != (3,):
            raise ValueError(f"camera_rotation has the shape {rotation.shape}, not (3, 3)")
        rotation = (_Y_TO_Z_UP @ rotation.T)[None]
        position_m = -rotation[0] @ translation_m[None, :, None]
        position_m = position_m[..., 0]
    else:
        return None
    error = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max()
    # NaN fails too.
    if not (error < 1e-3 and np.isfinite(position_m).all()):
        raise ValueError("camera_rotation holds no rotations")
    return CameraPath(rotation, position_m)
