"""The camera of a source: one pinhole that stands still."""

from __future__ import annotations

import math

import numpy as np

from numba_loops import compiled


def default_intrinsics(
    height: int, width: int, fov_deg: float | None = None, focal_px: float | None = None
) -> np.ndarray:
    """Return the intrinsics of a camera with square pixels and the centre in the image's middle.

    Args:
        height: The image's height, pixels.
        width: The image's width, pixels.
        fov_deg: The field of view across the longer side, degrees.
        focal_px: The focal length, pixels. With neither it is the image's diagonal, about 53
            degrees across it: the usual guess for an unknown camera (Li et al., CLIFF, ECCV 2022).

    Returns:
        K (3, 3) float64, pixels.

    Raises:
        ValueError: Both are given, or one is out of range.
    """
    if fov_deg is not None and focal_px is not None:
        raise ValueError("give the field of view or the focal length, not both")
    if fov_deg is not None:
        if not 1.0 <= fov_deg <= 170.0:
            raise ValueError(f"a field of view is 1 to 170 degrees, not {fov_deg:g}")
        focal = 0.5 * max(height, width) / math.tan(math.radians(fov_deg) / 2)
    elif focal_px is not None:
        if not (math.isfinite(focal_px) and focal_px > 0):
            raise ValueError(f"a focal length is above 0 pixels, not {focal_px:g}")
        focal = focal_px
    else:
        focal = math.hypot(height, width)
    # Pixel centres are at whole numbers, so the middle is at half of size - 1.
    return np.array(
        [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]
    )


def project(points_m: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the pinhole projection of points.

    Args:
        points_m: (..., 3) in the camera's axes, metres.
        intrinsics: K (3, 3), pixels; or one for each row of points, (N, 3, 3).

    Returns:
        (..., 2) pixels; points at or behind the camera are projected as if just before it.
    """
    xy = points_m[..., :2] / np.maximum(points_m[..., 2:], 1e-6)
    centre = intrinsics[..., :2, 2] if intrinsics.ndim == 2 else intrinsics[:, None, :2, 2]
    return xy @ intrinsics[..., :2, :2].swapaxes(-1, -2) + centre


def rotation_to_ray(ray: np.ndarray) -> np.ndarray:
    """Return the smallest rotation (..., 3, 3) float32 that takes the optical axis to a ray.

    A network that reads a crop describes the person as if the camera looked straight at it, so its
    world landmarks are in axes that are rotated by this much.

    Args:
        ray: (..., 2) the ray's x/z and y/z.
    """
    rays = np.ascontiguousarray(ray, np.float64).reshape(-1, 2)
    out = np.empty((len(rays), 3, 3), np.float32)
    for (x, y), rotation in zip(rays.tolist(), out):
        turn_to_ray(x, y, rotation)
    return out.reshape(*ray.shape[:-1], 3, 3)


@compiled("void(f8, f8, f4[:, ::1])")
def turn_to_ray(across, down, rotation):
    """Fill a rotation (3, 3) float32 as of `rotation_to_ray`, for the ray's x/z and y/z."""
    z = 1.0 / np.sqrt(1.0 + across * across + down * down)
    x, y = across * z, down * z
    rotation[0, 0], rotation[0, 1], rotation[0, 2] = 1 - x * x / (1 + z), -x * y / (1 + z), x
    rotation[1, 0], rotation[1, 1], rotation[1, 2] = rotation[0, 1], 1 - y * y / (1 + z), y
    rotation[2, 0], rotation[2, 1], rotation[2, 2] = -x, -y, z


def view_rotation(pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) float32 from the axes of BlazePose's world landmarks to the
    camera's.

    Args:
        pixels: The person's landmarks in the image (K, 2).
        intrinsics: K (3, 3), pixels.
    """
    rays = (pixels - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
    return rotation_to_ray(0.5 * (rays.min(0) + rays.max(0)))
