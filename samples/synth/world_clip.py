"""Clips with a world: people who walk on a floor, before a camera that is tilted, or that pans,
tilts, zooms and shakes from one place."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from synth.backdrop import Backdrop, Light, paint
from synth.camera import Camera, direction, look
from synth.clip import Clip
from synth.feet import Feet
from synth.kinds import MOTIONS
from synth.motion import Motion
from synth.scene import Instant, Scene

_PITCH_DEG, _ROLL_DEG, _HEIGHT_M = (-5.0, 35.0), 4.0, (0.8, 4.0)
_SHARE = 0.33
"""A person of a still camera's clip fills at least this part of the picture's height, if any of
the tried cameras allows it."""
_TRIES = 40
_APART_M = 0.8
"""People's pelvises are never nearer to one another than this."""
_SHAKE_HZ = (1.2, 9.0)
_FINE = 1.2
"""Pixels of the painted panorama for a pixel of a picture without zoom."""
_BLUR_STEPS = 5


class WorldClip(Clip):
    """A clip with a world; everything in it follows from its seed.

    Args:
        kind: As for `Clip`, as all others.
        moving: Whether the camera pans, tilts, zooms and shakes; else it stands still, tilted.
    """

    def __init__(self, kind: str, seed: int, *args: Any, moving: bool = False, **more: Any) -> None:
        self.moving = moving
        super().__init__(kind, seed, *args, **more)
        self.feet = [Feet.of(person) for person in self.cast]

    def _arrange(self) -> None:
        """Place the others at random where their ways keep apart."""
        if MOTIONS[self.kind].throws:
            super()._arrange()
            return
        random = np.random.default_rng([self.seed, 5])
        times = np.arange(0, self.seconds, 0.2)

        def way(motion: Motion) -> np.ndarray:
            return np.array([motion.at(self._clock(motion, t))[1][[0, 2]] for t in times])

        ways = [way(self.motions[0])]
        middle = 0.5 * (ways[0].min(0) + ways[0].max(0))
        for number in range(1, len(self.motions)):
            for attempt in range(100):
                wide = 1.5 + 0.03 * attempt
                place = middle + random.uniform(-wide, wide, 2)
                moved = replace(
                    self.motions[number], place_m=(float(place[0]), float(place[1])),
                    heading_deg=float(random.uniform(-180, 180)),
                )  # fmt: skip
                own = way(moved)
                if min(np.linalg.norm(own - other, axis=1).min() for other in ways) > _APART_M:
                    break
            self.motions[number] = moved
            ways.append(own)

    def _around(self, times: np.ndarray) -> np.ndarray:
        """Return what must be in the picture at each time (T, K, 3): joints with a margin, because
        hands, hair and shoes extend beyond them. Of a moving camera, the first person only."""
        bodies = [self.posed(time)[: 1 if self.moving else None] for time in times]
        joints = np.array([np.concatenate([body.joints() for body in row]) for row in bodies])
        corners = [[x, y, z] for x in (-0.2, 0.2) for y in (-0.1, 0.22) for z in (-0.2, 0.2)]
        return np.concatenate([joints + corner for corner in corners], 1)

    def _camera(self, size: tuple[int, int], stature_m: float) -> Camera:
        random = np.random.default_rng([self.seed, 9])
        if self.moving:
            return self._moving_camera(size, stature_m, random)
        return self._still_camera(size, stature_m, random)

    def _still_camera(
        self, size: tuple[int, int], stature_m: float, random: np.random.Generator
    ) -> Camera:
        """Return a camera of random height, pitch and roll that has everyone in the picture all the
        time, as near as that is possible; the first one in which they are large enough."""
        around = self._around(np.linspace(0, self.seconds, int(4 * self.seconds) + 2))
        around = around.reshape(-1, 3)
        middle = 0.5 * (around.min(0) + around.max(0)) * [1, 0, 1]
        towards = direction(self.setup.yaw_deg, 0.0)
        best: tuple[float, Camera | None] = (0.0, None)
        for _ in range(_TRIES):
            focal = random.uniform(0.7, 1.3) * float(np.hypot(*size))
            height, pitch = random.uniform(*_HEIGHT_M), random.uniform(*_PITCH_DEG)
            roll = random.uniform(-_ROLL_DEG, _ROLL_DEG)
            ahead = direction(self.setup.yaw_deg + 180 + random.uniform(-4, 4), pitch)
            for distance in np.geomspace(2.5, 30, 28):
                share = focal * stature_m / (distance * size[0])
                place = middle + distance * towards + [0, height, 0]
                camera = look(size, focal, place, ahead, roll)
                if share > best[0] and _inside(camera, around):
                    best = share, camera
                    break
            if best[0] >= _SHARE:
                break
        if best[1] is None:
            raise ValueError(f"seed {self.seed}: no camera has all people in the picture")
        return best[1]

    def _moving_camera(
        self, size: tuple[int, int], stature_m: float, random: np.random.Generator
    ) -> Camera:
        """Choose the camera's path, `camera_at`; return the camera that looks at its middle,
        without zoom."""
        times = np.arange(-0.5, self.seconds + 0.6, 0.1)
        body = np.array([self.posed(max(time, 0))[0].joints()[0] for time in times])
        aim = gaussian_filter1d(body, 4.0, axis=0, mode="nearest")
        aim[:, 1] = 0.5 * stature_m
        focal = random.uniform(0.8, 1.4) * float(np.hypot(*size))
        share, height = random.uniform(0.42, 0.62), random.uniform(*_HEIGHT_M)
        rate = random.choice([-1, 1]) * random.uniform(1.0, 4.0)
        size_deg, period_s = random.uniform(0.5, 1.5, 2), random.uniform(3, 7, 2)
        phase = random.uniform(0, 6, 2)
        wander = size_deg[:, None] * np.sin(2 * np.pi * times / period_s[:, None] + phase[:, None])
        most = random.choice([1.0, random.uniform(1.2, 1.8)])
        begun = random.uniform(0.1, 0.4) * self.seconds
        zoom = 1 + (most - 1) * _eased((times - begun) / (0.4 * self.seconds))
        self._roll_deg, self._size = random.uniform(-3, 3), size
        self._shake = _shake(random)
        checked = np.linspace(0, self.seconds, int(5 * self.seconds) + 2)
        around = self._around(checked)
        distance = focal * stature_m / (share * size[0])
        for _ in range(60):
            middle = 0.5 * (aim.min(0) + aim.max(0)) * [1, 0, 1]
            place = middle + distance * direction(self.setup.yaw_deg, 0.0) + [0, height, 0]
            way = aim - place
            turn = np.degrees(np.unwrap(np.arctan2(way[:, 0], way[:, 2])))
            turn += wander[0] + rate * (times - 0.5 * self.seconds)
            pitch = np.degrees(np.arctan2(-way[:, 1], np.hypot(way[:, 0], way[:, 2]))) + wander[1]
            self._place_m, self._focal_px = place, focal
            self._curves = PchipInterpolator(times, np.stack((turn, pitch, zoom), 1))
            if all(_inside(self.camera_at(t), points) for t, points in zip(checked, around)):
                break
            distance, rate = 1.06 * distance, 0.95 * rate
        span = self._curves(np.linspace(0, self.seconds, 50))
        turn, pitch = 0.5 * (span.min(0) + span.max(0))[:2]
        return look(size, focal, self._place_m, direction(turn, pitch), self._roll_deg)

    def camera_at(self, time_s: float) -> Camera:
        if not self.moving:
            return self.camera
        turn, pitch, zoom = self._curves(time_s)
        pan, tilt, roll = self._shake(time_s)
        ahead = direction(turn + pan, pitch + tilt)
        focal = float(zoom) * self._focal_px
        return look(self._size, focal, self._place_m, ahead, self._roll_deg + roll)

    def _paint(self, light: Light) -> Backdrop:
        """Paint the place; of a moving camera as one picture, of all that it ever sees."""
        if not self.moving:
            return super()._paint(light)
        base, size = self.camera, self._size
        corners = np.array([[x, y] for x in (-2, size[1] + 1) for y in (-2, size[0] + 1)])
        seen = []
        for time in np.linspace(-0.02, self.seconds + 0.02, 4 * self.frames):
            to_base = _between(self.camera_at(time), base)
            flat = np.column_stack((corners, np.ones(4))) @ to_base.T
            seen.append(flat[:, :2] / flat[:, 2:])
        low, high = np.concatenate(seen).min(0), np.concatenate(seen).max(0)
        lens = base.intrinsics.copy()
        lens[:2, 2] -= low
        lens[:2] *= _FINE
        width, height = np.ceil((high - low) * _FINE).astype(int) + 1
        self._wide = Camera(lens, base.rotation, base.translation_m, (int(height), int(width)))
        random = np.random.default_rng([self.seed, 3])
        lines = _FINE * size[0]
        return paint(self.setup.place, self._wide, light, self._reach(), random, lines)

    def scene_at(self, frame: int) -> Scene:
        if not self.moving:
            return self.scene
        scene = copy(self.scene)
        middle = frame / self.fps
        scene.camera = camera = self.camera_at(middle)
        wide = self.scene.backdrop
        open_s = self.setup.shutter / self.fps
        spread = (np.arange(_BLUR_STEPS) + 0.5) / _BLUR_STEPS - 0.5
        views = np.array([
            _warped(wide.radiance, self.camera_at(middle + s * open_s), self._wide) for s in spread
        ])  # fmt: skip
        rays, place = camera.rays(), camera.place_m
        ground = _warped(wide.ground, camera, self._wide)
        reach = -place[1] / np.minimum(rays[..., 1], -1e-6)
        xz = np.where(ground[..., None] > 0, (place + rays * reach[..., None])[..., [0, 2]], 0.0)
        scene.backdrop = Backdrop(views.mean(0), ground, xz.astype(np.float32), wide.bounce)
        return scene

    def _exposed(self, time_s: float, middle_s: float) -> Instant:
        """Return people and ball where the camera at the middle of the exposure must see them to
        draw what the camera at ``time_s`` sees."""
        instant, _ = self.instant(time_s)
        if not self.moving:
            return instant
        then, middle = self.camera_at(time_s), self.camera_at(middle_s)

        def shifted(points: np.ndarray) -> np.ndarray:
            return np.asarray((then.see(points) - middle.translation_m) @ middle.rotation)

        ball = None if instant.ball is None else shifted(instant.ball)
        return Instant(tuple(shifted(points) for points in instant.people), ball)

    def contact(self, time_s: float) -> np.ndarray:
        """Return which feet of each person stand (P, 2), bool: left, right."""
        half = 0.5 / self.fps
        rows = zip(*(self.posed(max(time_s + s * half, 0.0)) for s in (-1, 0, 1)))
        return np.array([feet.contact(*bodies) for feet, bodies in zip(self.feet, rows)])


def _inside(camera: Camera, points: np.ndarray) -> bool:
    seen = camera.see(points)
    if not (seen[:, 2] > 0.8).all():
        return False
    pixels = camera.project(seen)
    return bool(((pixels > 0) & (pixels < camera.size[::-1])).all())


def _eased(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def _shake(random: np.random.Generator):
    """Return the function from a time to a hand's shake: pan, tilt and roll, degrees; 0.1 to 0.5
    degrees (root mean square) for pan and tilt, a third for roll."""
    hertz, phase = random.uniform(*_SHAKE_HZ, (3, 8)), random.uniform(0, 2 * np.pi, (3, 8))
    size = random.uniform(0.1, 0.5) * np.array([1.0, 1.0, 0.33])
    # A hand shakes slowly more than fast.
    weight = 1 / hertz
    weight *= (size / np.sqrt(0.5 * (weight**2).sum(1)))[:, None]
    return lambda time_s: (weight * np.sin(2 * np.pi * hertz * time_s + phase)).sum(1)


def _between(one: Camera, two: Camera) -> np.ndarray:
    """Return the homography (3, 3) from pixels of a camera to those of another at its place."""
    turn = two.rotation @ one.rotation.T
    return np.asarray(two.intrinsics @ turn @ np.linalg.inv(one.intrinsics))


def _warped(picture: np.ndarray, camera: Camera, wide: Camera) -> np.ndarray:
    """Return what a camera sees of the picture of another at its place."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = camera.size[::-1]
    return np.asarray(cv2.warpPerspective(
        picture, _between(camera, wide), size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    ))  # fmt: skip
