"""Pictures of a made-up scene by a camera that turns, zooms or walks, with its true motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.core.camera import default_intrinsics

_PIXELS_A_DEGREE = 24


@cache
def texture(seed: int, height: int = 2640, width: int = 4320) -> np.ndarray:
    """Return a picture (H, W) uint8 of clouds, boxes and discs, for 180 by 110 degrees."""
    rng = np.random.default_rng(seed)
    level = np.zeros((height, width), np.float32)
    for cell_px in (8, 32, 128, 512):
        shape = -(-height // cell_px) + 1, -(-width // cell_px) + 1
        noise = rng.normal(0, 14, shape).astype(np.float32)
        level += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(level + 120, 0, 255).astype(np.uint8)
    for _ in range(width * height // 9000):
        x, y, size = rng.integers(0, width), rng.integers(0, height), int(rng.integers(6, 70))
        shade = int(rng.integers(20, 235))
        if rng.random() < 0.6:
            far = int(x + rng.integers(6, 70)), int(y + size)
            cv2.rectangle(image, (int(x), int(y)), far, shade, -1)
        else:
            cv2.circle(image, (int(x), int(y)), size // 2, shade, -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.2)
    image.setflags(write=False)
    return image


@cache
def hall(seed: int, height: int = 2640, width: int = 4320) -> np.ndarray:
    """Return a picture (H, W) uint8 of a hall without corners: a plain wall with blurred posts, and
    a floor with lines and faint streaks; for 180 by 110 degrees."""
    rng = np.random.default_rng(seed)
    level = np.full((height, width), 120.0, np.float32)
    floor = height // 2 + int(rng.integers(-40, 120))
    for x in range(int(rng.integers(0, 150)), width, 150):
        cv2.rectangle(level, (x, 0), (x + 12, floor), 70.0, -1)
    streaks = rng.normal(0, 9, ((height - floor) // 6 + 1, width // 90 + 1)).astype(np.float32)
    level[floor:] = 165.0 + cv2.resize(streaks, (width, height - floor))
    for _ in range(4):
        x = rng.integers(-width // 2, width + width // 2, 2)
        cv2.line(level, (int(x[0]), floor + 60), (int(x[1]), height), 235.0, 12)
    image = np.asarray(cv2.GaussianBlur(level, (0, 0), 7.0))
    image = np.clip(image, 0, 255).astype(np.uint8)
    image.setflags(write=False)
    return image


@cache
def posts(seed: int, height: int = 2640, width: int = 4320) -> np.ndarray:
    """Return a picture (H, W) uint8 of blurred vertical posts alone, at different distances."""
    level = np.full((height, width), 130.0, np.float32)
    for x in np.cumsum(np.random.default_rng(seed).integers(24, 60, 150)):
        level[:, int(x) : int(x) + 8] = 70.0
    image = np.asarray(cv2.GaussianBlur(level, (0, 0), 2.0)).astype(np.uint8)
    image.setflags(write=False)
    return image


def beside(*draws: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """Return what draws parts of several pictures beside each other, equally wide."""

    def draw(seed: int) -> np.ndarray:
        pictures = [one(seed) for one in draws]
        edges = np.linspace(0, pictures[0].shape[1], len(draws) + 1).astype(int)
        parts = [p[:, low:high] for p, low, high in zip(pictures, edges, edges[1:])]
        return np.concatenate(parts, 1)

    return draw


def turn(pan_deg: float = 0.0, tilt_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """Return the rotation (3, 3) from the axes of a camera to those of the reference: panned to the
    right, tilted up and rolled clockwise."""
    return Rotation.from_euler("YXZ", [pan_deg, tilt_deg, roll_deg], degrees=True).as_matrix()


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Return the angle between two rotations (3, 3), degrees."""
    return float(np.degrees(Rotation.from_matrix(first.T @ second).magnitude()))


class Scene:
    """A sphere around the camera.

    Args:
        seed: What the scene looks like.
        size: (height, width) of its pictures, pixels.
        fov_deg: The field of view across the longer side, degrees; that of the usual guess if None.
        draw: Draws what is on the sphere, from the seed.
    """

    def __init__(
        self,
        seed: int = 0,
        size: tuple[int, int] = (360, 640),
        fov_deg: float | None = None,
        draw: Callable[[int], np.ndarray] = texture,
    ) -> None:
        self.size = size
        self.intrinsics = default_intrinsics(*size, fov_deg=fov_deg)
        self._texture = draw(seed)

    def picture(
        self,
        rotations: np.ndarray | Sequence[np.ndarray],
        zoom: float = 1.0,
        row_rotations: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return grey uint8 (H, W), averaged over the rotations if there are several: blurred."""
        rotations = np.asarray(rotations).reshape(-1, 3, 3)
        total = np.zeros(self.size, np.float32)
        for rotation in rotations:
            total += self._sharp(rotation, zoom)
        return np.round(total / len(rotations)).astype(np.uint8)

    def _sharp(self, rotation: np.ndarray, zoom: float) -> np.ndarray:
        height, width = self.size
        focal = self.intrinsics[0, 0] * zoom
        y, x = np.mgrid[:height, :width].astype(np.float32)
        rays = np.stack(
            [
                (x - self.intrinsics[0, 2]) / focal,
                (y - self.intrinsics[1, 2]) / focal,
                np.ones_like(x),
            ],
            -1,
        )
        rays = rays @ rotation.T.astype(np.float32)
        long = np.degrees(np.arctan2(rays[..., 0], rays[..., 2]))
        lat = np.degrees(np.arctan2(rays[..., 1], np.hypot(rays[..., 0], rays[..., 2])))
        tall, wide = self._texture.shape
        at_x = (long * _PIXELS_A_DEGREE + wide / 2).astype(np.float32)
        at_y = (lat * _PIXELS_A_DEGREE + tall / 2).astype(np.float32)
        return cv2.remap(
            self._texture, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        ).astype(np.float32)


def two_planes(size: tuple[int, int], place_m: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return grey uint8 (H, W) of a wall 9 m away behind pillars 3 m away.

    Args:
        size: (height, width), pixels.
        place_m: (3,) the camera's place, metres.
        rotation: (3, 3) from the camera's axes to the scene's.
    """
    height, width = size
    lens = default_intrinsics(height, width)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x, y, np.ones_like(x)], -1)
    rays = pixels @ (rotation @ np.linalg.inv(lens)).T
    planes = []
    for seed, depth_m in enumerate((9.0, 3.0)):
        points_m = place_m[:2] + rays[..., :2] * ((depth_m - place_m[2]) / rays[..., 2:])
        image = texture(seed)
        at = points_m * (lens[0, 0] / depth_m) + np.array(image.shape[::-1]) / 2
        at_x, at_y = at.astype(np.float32).transpose(2, 0, 1)
        mode = cv2.BORDER_REFLECT
        planes.append(cv2.remap(image, at_x, at_y, cv2.INTER_LINEAR, borderMode=mode))
    return np.where(np.sin(points_m[..., 0] * 2 * np.pi / 1.1) > 0.1, planes[1], planes[0])
