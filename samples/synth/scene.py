"""Dressed people and a ball before a backdrop: pictures with motion blur, and exact masks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from synth.backdrop import Backdrop, Light
from synth.camera import Camera
from synth.extras import ball
from synth.person import Person
from synth.raster import add_sky, light_map, rasterize, shade, vertex_normals

SAMPLES = 2
_SKY_PATCHES = 14
_SHADOW_CELL_M = 0.008
_SKY_CELL_M = 0.016
_GROUND_CELL_M = 0.012
_AHEAD_PX = 1.7  # the furthest that anything moves between two sub-frames, in pixels


@dataclass(frozen=True, eq=False)
class Instant:
    """One moment in the world: the people's clothed vertices (V_p, 3), and the ball's centre (3,)
    or None."""

    people: tuple[np.ndarray, ...]
    ball: np.ndarray | None


class Scene:
    """A camera, a light, a backdrop and people; it draws instants."""

    def __init__(
        self, camera: Camera, light: Light, backdrop: Backdrop, people: tuple[Person, ...]
    ) -> None:
        self.camera, self.light, self.backdrop, self.people = camera, light, backdrop, people
        self._ball, ball_faces = ball()
        starts = np.cumsum([0] + [len(p.clothed.rest) for p in people])
        rows = np.cumsum([0] + [len(p.texture) for p in people])
        self.faces = np.concatenate(
            [p.faces + start for p, start in zip(people, starts)] + [ball_faces + starts[-1]]
        ).astype(np.int64)
        corners = [p.corners + [0, row] for p, row in zip(people, rows)]
        leather = np.tile(people[0].ball_texel, (len(ball_faces), 3, 1))
        self._corners = np.concatenate([*corners, leather])
        self._texture = np.concatenate([p.texture for p in people])
        self.owner = np.repeat(np.arange(len(people) + 1), [*(len(p.faces) for p in people),
                                                            len(ball_faces)])  # fmt: skip
        self.owner[self.owner == len(people)] = -1
        self._patches = _sky_patches(_SKY_PATCHES)

    def _joined(self, instant: Instant) -> np.ndarray:
        """Return all vertices in the camera's axes; a missing ball is put behind the camera."""
        there = instant.ball if instant.ball is not None else self.camera.place_m
        seen = self.camera.see(np.concatenate([*instant.people, self._ball + there]))
        if instant.ball is None:
            seen[-len(self._ball) :, 2] -= 1.0
        return seen

    def _points(self, seen: np.ndarray, corner: np.ndarray, samples: int) -> np.ndarray:
        """Return columns and rows in a window of samples with the first pixel ``corner``, and
        1/z."""
        pixels = self.camera.project(seen)
        inside = (pixels - corner) * samples + 0.5 * (samples - 1)
        return np.column_stack((inside, np.where(seen[:, 2] > 0.05, 1 / seen[:, 2], -1)))

    def surfaces(self, instant: Instant) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each pixel's centre, the number of the visible person (H, W), -1 for none,
        and the depth along the axis (H, W) float32 in metres, 0 for none."""
        nearest = np.zeros(self.camera.size, np.float32)
        ids = np.full(self.camera.size, -1, np.int32)
        rasterize(self._points(self._joined(instant), np.zeros(2), 1), self.faces, nearest, ids)
        owner = np.where(ids >= 0, self.owner[ids], -1)
        depth = np.where(owner >= 0, 1 / np.maximum(nearest, 1e-9), 0)
        return owner, depth.astype(np.float32)

    def subframes(self, first: Instant, last: Instant) -> int:
        """Return how many instants from ``first`` to ``last`` make a blur without visible steps."""
        a, b = (self.camera.project(self._joined(i)) for i in (first, last))
        moved = np.abs(a - b).max(1)
        people = moved[: -len(self._ball)].max()
        inside = (a[-1] > 0).all() and (a[-1] < self.camera.size[::-1]).all()
        flown = moved[-1] if inside and last.ball is not None else 0.0
        return int(np.clip(np.ceil(max(people, flown) / (_AHEAD_PX * SAMPLES)), 3, 28))

    def picture(self, instants: list[Instant]) -> np.ndarray:
        """Return the linear radiance (H, W, 3) float32, the mean over the exposure's
        ``instants``."""
        seen = [self._joined(instant) for instant in instants]
        corner, size = self._window(seen)
        body = np.zeros((*size, 4))
        ambient = self._ambient(seen[len(seen) // 2])
        fallen = _GroundShadow(self, seen)
        steps = _disc(len(instants))
        for view, step in zip(seen, steps):
            sun = self.light.towards_sun + self.light.spread * _across(self.light, step)
            towards = self.camera.rotation @ (sun / np.linalg.norm(sun))
            self._draw(view, towards, ambient, corner, 1 / len(instants), body)
            fallen.add_sun(view, towards, 1 / len(instants))
        fallen.add_sky(seen[len(seen) // 2], self._patches)
        out = self.backdrop.radiance * fallen.kept()[..., None]
        area = (slice(corner[1], corner[1] + size[0]), slice(corner[0], corner[0] + size[1]))
        out[area] = out[area] * (1 - body[..., 3:]) + body[..., :3]
        return out.astype(np.float32)

    def _window(self, seen: list[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the first pixel (x, y) and the size (h, w) of the part that the bodies cover."""
        pixels = np.concatenate([self.camera.project(v[v[:, 2] > 0.05]) for v in seen])
        height, width = self.camera.size
        low = np.clip(np.floor(pixels.min(0)) - 1, 0, [width - 1, height - 1]).astype(int)
        high = np.clip(np.ceil(pixels.max(0)) + 2, low + 1, [width, height]).astype(int)
        return low, (high[1] - low[1], high[0] - low[0])

    def _ambient(self, seen: np.ndarray) -> np.ndarray:
        """Return the light of sky and ground on each vertex (V, 3), less what the bodies hide."""
        normals = vertex_normals(seen, self.faces)
        out = np.zeros_like(seen)
        for towards, share in self._patches:
            way = self.camera.rotation @ towards
            light = light_map(seen, self.faces, way, _SKY_CELL_M)
            add_sky(seen, normals, way, share * self.light.sky, light, _SKY_CELL_M, 0.012, out)
        down = -normals @ (self.camera.rotation @ [0.0, 1.0, 0.0])
        full = self.light.sun * self.light.towards_sun[1] + self.light.sky
        return out + 0.5 * (1 + down)[:, None] * full * self.backdrop.bounce * 0.8

    def _draw(
        self,
        seen: np.ndarray,
        sun: np.ndarray,
        ambient: np.ndarray,
        corner: np.ndarray,
        weight: float,
        out: np.ndarray,
    ) -> None:
        points = self._points(seen, corner, SAMPLES)
        shape = (out.shape[0] * SAMPLES, out.shape[1] * SAMPLES)
        nearest, ids = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
        rasterize(points, self.faces, nearest, ids)
        lens = self.camera.intrinsics
        centre = (lens[:2, 2] - corner) * SAMPLES + 0.5 * (SAMPLES - 1)
        view = (lens[0, 0] * SAMPLES, centre[0], centre[1], SAMPLES, weight / SAMPLES**2)
        light = light_map(seen, self.faces, sun, _SHADOW_CELL_M)
        shade(
            ids, points, self.faces, self._corners, self._texture,
            vertex_normals(seen, self.faces), ambient, view, (sun, self.light.sun),
            (light, _SHADOW_CELL_M, 0.008), out,
        )  # fmt: skip


class _GroundShadow:
    """The light that the bodies keep from the ground, on a map of the ground around them."""

    def __init__(self, scene: Scene, seen: list[np.ndarray]) -> None:
        self._scene = scene
        self._points = [self._world(view) for view in seen]
        reach = max(points[:, 1].max() for points in self._points)
        around = np.concatenate([points[:, [0, 2]] for points in self._points])
        sun = scene.light.towards_sun
        shift = -sun[[0, 2]] / max(sun[1], 0.2) * reach
        low = np.minimum(around.min(0), around.min(0) + shift) - 0.8
        high = np.maximum(around.max(0), around.max(0) + shift) + 0.8
        self._low = low
        shape = np.ceil((high - low) / _GROUND_CELL_M).astype(int)[::-1]
        self._sun = np.zeros(shape, np.float32)
        self._sky: np.ndarray = np.zeros(shape, np.float32)

    def _world(self, seen: np.ndarray) -> np.ndarray:
        camera = self._scene.camera
        return (seen - camera.translation_m) @ camera.rotation

    def _cover(self, seen: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """Return where on the map the bodies hide a light in a world direction (3,)."""
        world = self._world(seen)
        fallen = world - towards * (world[:, 1:2] / towards[1])
        flat = (fallen[:, [0, 2]] - self._low) / _GROUND_CELL_M
        points = np.column_stack((flat, np.where(seen[:, 2] > 0.05, 1.0, -1.0)))
        nearest = np.zeros(self._sun.shape, np.float32)
        rasterize(points, self._scene.faces, nearest, np.zeros(nearest.shape, np.int32))
        return nearest

    def add_sun(self, seen: np.ndarray, towards: np.ndarray, weight: float) -> None:
        self._sun += weight * self._cover(seen, self._scene.camera.rotation.T @ towards)

    def add_sky(self, seen: np.ndarray, patches: list[tuple[np.ndarray, float]]) -> None:
        for towards, share in patches:
            cover = self._cover(seen, towards) * (share * towards[1])
            self._sky = self._sky + cv2.GaussianBlur(cover, (0, 0), 7.0)

    def kept(self) -> np.ndarray:
        """Return the share of its light that each pixel of the picture keeps (H, W) float32."""
        light = self._scene.light
        sun, sky = float(light.sun.mean() * light.towards_sun[1]), float(light.sky.mean())
        soft = cv2.GaussianBlur(self._sun, (0, 0), 1.0 + 60 * light.spread)
        taken = (sun * soft + sky * self._sky) / (sun + sky)
        place = (self._scene.backdrop.ground_xz_m - self._low) / _GROUND_CELL_M
        place = place.astype(np.float32)
        taken = cv2.remap(taken, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
        return 1 - taken * self._scene.backdrop.ground


def _sky_patches(count: int) -> list[tuple[np.ndarray, float]]:
    """Return evenly spread directions of the upper half (Fibonacci), and shares that light a level
    surface by 1 in total."""
    out = []
    for k in range(count):
        up = (k + 0.5) / count
        angle, level = k * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - up * up)
        out.append((np.array([level * np.cos(angle), up, level * np.sin(angle)]), 2 / count))
    return out


def _disc(count: int) -> np.ndarray:
    """Return points (count, 2) over the unit disc, in an irregular order."""
    k = (np.arange(count) * 7) % count if count % 7 else np.arange(count)
    radius, angle = np.sqrt((k + 0.5) / count), k * np.pi * (3 - np.sqrt(5))
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)


def _across(light: Light, step: np.ndarray) -> np.ndarray:
    side = np.cross(light.towards_sun, [0.31, 0.2, 0.93])
    side /= np.linalg.norm(side)
    return step[0] * side + step[1] * np.cross(light.towards_sun, side)
