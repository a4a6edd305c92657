"""The still part of a picture: the ground and a wall behind it, lit by a sun and a sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from synth.camera import Camera
from synth.grounds import GROUNDS, Noise
from synth.walls import PER_M, WALLS

PLACES = tuple(GROUNDS)


@dataclass(frozen=True, eq=False)
class Light:
    """The light: the unit direction ``towards_sun`` (3,) in the world, the irradiances ``sun`` and
    ``sky`` (3,), linear RGB, on a surface that faces them, and ``spread``, the sun's radius in
    radians, which softens shadows."""

    towards_sun: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    spread: float


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A painted backdrop: its linear ``radiance`` (H, W, 3) float32; ``ground`` (H, W) in [0, 1],
    where shadows fall; the places ``ground_xz_m`` (H, W, 2) of these pixels in the world; and
    ``bounce`` (3,), the ground's mean albedo."""

    radiance: np.ndarray
    ground: np.ndarray
    ground_xz_m: np.ndarray
    bounce: np.ndarray


def paint(
    kind: str,
    camera: Camera,
    light: Light,
    people_m: tuple[float, float],
    random: np.random.Generator,
    lines: float | None = None,
) -> Backdrop:
    """Paint the place as a camera sees it, without people.

    Args:
        kind: "ballpark", "park", "plaza" or "hall".
        camera: The camera.
        light: The light.
        people_m: The least and the greatest distance of people along the camera's level axis.
        random: The random generator.
        lines: The height of the picture that sets the blur, pixels; None for the camera's.
    """
    lines = lines or camera.size[0]
    rays, place = camera.rays(), camera.place_m
    down = np.minimum(rays[..., 1], -1e-6)
    reach = -place[1] / down
    ground = place + rays * reach[..., None]
    forward = camera.rotation[2] * [1, 0, 1]
    forward /= np.linalg.norm(forward)
    side = np.cross(forward, [0.0, 1.0, 0.0])
    behind = (1.5, 5.0) if kind == "hall" else (5.0, 15.0)
    wall_m = people_m[1] + float(random.uniform(*behind))
    on_ground = (rays[..., 1] < -1e-5) & ((ground - place) @ forward < wall_m)
    pixel_m = reach / camera.intrinsics[0, 0]
    ground_pixel = np.where(on_ground, pixel_m * np.maximum(1, 0.35 * reach), 1e3)
    noise = Noise(random)
    xz = np.where(on_ground[..., None], ground[..., [0, 2]], 0.0)
    albedo = GROUNDS[kind](xz[..., 0], xz[..., 1], ground_pixel, noise, random)
    lit = light.sun * light.towards_sun[1] + light.sky
    near = albedo * lit
    hit = place + rays * (wall_m / np.maximum(rays @ forward, 1e-3))[..., None]
    sheet = WALLS[kind](random) ** 2.2
    u = ((hit @ side) * PER_M + sheet.shape[1] / 2).astype(np.float32)
    v = (sheet.shape[0] - 1 - hit[..., 1] * PER_M).astype(np.float32)
    far = cv2.remap(sheet, u, v, cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    upright = 0.55 * light.sun * max(float(-forward @ light.towards_sun), 0.25) + 0.75 * light.sky
    far = far * upright if kind != "hall" else far * lit * 0.6
    picture = np.where(on_ground[..., None], near, far).astype(np.float32)
    # The lens is focused on the people: the picture is softer behind them.
    blurred = cv2.GaussianBlur(picture, (0, 0), lines / 200)
    slight = cv2.GaussianBlur(picture, (0, 0), lines / 900)
    distance = np.where(on_ground, (ground - place) @ forward, wall_m)
    soft = np.clip((distance - people_m[1] - 0.5) / 5.0, 0, 1)[..., None]
    picture = np.asarray(slight * (1 - soft) + blurred * soft, np.float32)
    return Backdrop(
        picture, on_ground.astype(np.float32), xz.astype(np.float32),
        albedo[on_ground].mean(0),
    )  # fmt: skip
