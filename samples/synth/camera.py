"""A still pinhole camera in a world with y up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: ``intrinsics`` (3, 3) in pixels (pixel centres at whole numbers);
    ``rotation`` (3, 3) and ``translation_m`` (3,) from the world to OpenCV's camera axes (x right,
    y down, z forward); ``size`` (height, width)."""

    intrinsics: np.ndarray
    rotation: np.ndarray
    translation_m: np.ndarray
    size: tuple[int, int]

    @property
    def place_m(self) -> np.ndarray:
        """The camera's position in the world (3,)."""
        return -self.rotation.T @ self.translation_m

    def see(self, points: np.ndarray) -> np.ndarray:
        """Return world points (..., 3) in the camera's axes, metres."""
        return points @ self.rotation.T + self.translation_m

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (..., 2) of camera points (..., 3)."""
        lens = self.intrinsics
        return points[..., :2] / points[..., 2:] @ lens[:2, :2].T + lens[:2, 2]

    def rays(self) -> np.ndarray:
        """Return each pixel's direction in the world (H, W, 3), of length 1 along the optical
        axis."""
        height, width = self.size
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        lens = self.intrinsics
        flat = ((x - lens[0, 2]) / lens[0, 0], (y - lens[1, 2]) / lens[1, 1], np.ones(x.shape))
        return np.stack(flat, -1) @ self.rotation


def make_camera(
    size: tuple[int, int],
    focal_px: float,
    yaw_deg: float,
    distance_m: float,
    height_m: float,
    aim_m: np.ndarray,
    roll_deg: float = 0.0,
) -> Camera:
    """Return a camera that looks at a point of the world.

    Args:
        size: The (height, width) of the picture.
        focal_px: The focal length in pixels.
        yaw_deg: The direction from the point to the camera: 0 is +z, 90 is +x.
        distance_m: The distance from the point along the ground.
        height_m: The height above the ground.
        aim_m: The point (3,).
        roll_deg: The rotation about the optical axis.
    """
    yaw = np.radians(yaw_deg)
    place = aim_m + [distance_m * np.sin(yaw), height_m - aim_m[1], distance_m * np.cos(yaw)]
    forward = aim_m - place
    return look(size, focal_px, place, forward, roll_deg)


def look(
    size: tuple[int, int],
    focal_px: float,
    place_m: np.ndarray,
    forward: np.ndarray,
    roll_deg: float = 0.0,
) -> Camera:
    """Return a camera at a place (3,) of the world that looks along ``forward`` (3,)."""
    roll = np.radians(roll_deg)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack((c * right + s * down, c * down - s * right, forward))
    height, width = size
    lens = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(lens, rotation, -rotation @ place_m, size)


def direction(heading_deg: float, pitch_deg: float) -> np.ndarray:
    """Return the unit vector (3,) towards a heading (0 is +z, 90 is +x), ``pitch_deg`` below the
    horizon."""
    heading, pitch = np.radians(heading_deg), np.radians(pitch_deg)
    level = np.cos(pitch)
    return np.array([level * np.sin(heading), -np.sin(pitch), level * np.cos(heading)])
