"""A still camera, a ball field, a sun: pictures of people in it, and the exact masks and depths."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SUBFRAMES = 9
_SHUTTER = 0.5
_BALL_M = 0.037


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole: ``intrinsics`` (3, 3) pixels, ``rotation`` (3, 3) and ``translation_m`` (3,) from
    the world (y up) to OpenCV's camera axes; ``size`` (height, width)."""

    intrinsics: np.ndarray
    rotation: np.ndarray
    translation_m: np.ndarray
    size: tuple[int, int]

    def see(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in the camera's axes, metres."""
        return points @ self.rotation.T + self.translation_m

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera points (..., 3) to pixels (..., 2)."""
        return (
            points[..., :2] / points[..., 2:] @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2]
        )


def make_camera(
    size: tuple[int, int], yaw_deg: float, distance_m: float, height_m: float, aim: np.ndarray
) -> Camera:
    """A camera ``distance_m`` from ``aim``, ``yaw_deg`` around it (0: on the +z side)."""
    yaw = np.radians(yaw_deg)
    place = aim + [distance_m * np.sin(yaw), height_m - aim[1], distance_m * np.cos(yaw)]
    forward = aim - place
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    height, width = size
    focal = float(np.hypot(height, width))
    lens = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(lens, rotation, -rotation @ place, size)


class Field:
    """The still part of the picture: grass, a dirt mound, a wall with seats behind it, the sky."""

    def __init__(self, camera: Camera, sun: np.ndarray, random: np.random.Generator) -> None:
        self.camera, self.sun = camera, sun / np.linalg.norm(sun)
        height, width = camera.size
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        lens = camera.intrinsics
        rays = np.stack(
            ((x - lens[0, 2]) / lens[0, 0], (y - lens[1, 2]) / lens[1, 1], np.ones(x.shape)), -1
        )
        self._rays = rays @ camera.rotation
        self._place = -camera.rotation.T @ camera.translation_m
        down = np.minimum(self._rays[..., 1], -1e-6)
        self._ground = self._place + self._rays * (-self._place[1] / down)[..., None]
        self._on_ground = self._rays[..., 1] < -1e-4
        self.picture = self._paint(random)

    def _paint(self, random: np.random.Generator) -> np.ndarray:
        ground = self._ground
        far = np.linalg.norm(ground[..., [0, 2]] - self._place[[0, 2]], axis=-1)
        fine = _noise(ground[..., 0] * 9, ground[..., 2] * 9, random)
        coarse = _noise(ground[..., 0] * 0.7, ground[..., 2] * 0.7, random)
        mown = (np.floor(ground[..., 2] / 1.7 + 0.4 * ground[..., 0]) % 2) * 0.05
        soft = np.exp(-far / 25)[..., None]
        grass = np.array([0.27, 0.42, 0.16]) * (0.85 + mown + 0.22 * coarse)[..., None]
        grass = grass + 0.16 * fine[..., None] * soft * np.array([0.8, 1.0, 0.5])
        dirt = np.array([0.60, 0.42, 0.29]) * (0.9 + 0.16 * coarse)[..., None]
        dirt = dirt + 0.12 * fine[..., None] * soft
        edge = np.hypot((ground[..., 0] - 0.6) / 3.1, ground[..., 2] / 2.3) + 0.07 * coarse
        mix = np.clip((1.04 - edge) / 0.08, 0, 1)[..., None]
        picture = dirt * mix + grass * (1 - mix)
        rubber = (np.abs(ground[..., 0] + 0.12) < 0.08) & (np.abs(ground[..., 2]) < 0.32)
        picture[rubber] = [0.86, 0.85, 0.82]

        # A wall 16 m behind the mound, people on seats above it, sky above them.
        forward = np.array([self.camera.rotation[2, 0], 0.0, self.camera.rotation[2, 2]])
        forward /= np.linalg.norm(forward)
        away = 16.0 / np.maximum(self._rays @ forward, 1e-3)
        hit = self._place + self._rays * away[..., None]
        side = hit @ np.cross(forward, [0.0, 1.0, 0.0])
        behind = (~self._on_ground) | ((ground - self._place) @ forward > 16.0)
        wall = np.array([0.10, 0.22, 0.33]) * (0.9 + 0.1 * np.sin(side * 2.1))[..., None]
        picture[behind] = wall[behind]
        seats = behind & (hit[..., 1] > 1.7)
        people = [_noise(side * 2.6 + k * 31, hit[..., 1] * 2.6, random) for k in range(4)]
        crowd = np.array([0.30, 0.30, 0.33]) + 0.22 * people[3][..., None]
        crowd = crowd + 0.10 * np.stack(people[:3], -1)
        picture[seats] = np.clip(crowd, 0.05, 0.9)[seats]
        sky = behind & (hit[..., 1] > 6.5)
        picture[sky] = [0.62, 0.74, 0.88]
        rail = behind & (np.abs(hit[..., 1] - 1.72) < 0.05)
        picture[rail] = [0.75, 0.72, 0.2]
        blurred = cv2.GaussianBlur(picture, (0, 0), self.camera.size[0] / 180)
        near = np.clip(1.6 - far / 10, 0, 1)[..., None] * (~behind)[..., None]
        return np.clip(picture * near + blurred * (1 - near), 0, 1).astype(np.float32)

    def shadow(self, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """How much of the sun a person takes from each pixel of the ground (H, W) in [0, 1]."""
        fallen = vertices - self.sun * (vertices[:, 1:2] / self.sun[1])
        seen = self.camera.see(fallen)
        pixels = self.camera.project(seen)
        mask = np.zeros(self.camera.size, np.uint8)
        triangles = np.rint(pixels[faces] * 8).astype(np.int32)
        for triangle in triangles[(seen[faces][..., 2] > 0.1).all(1)]:
            cv2.fillConvexPoly(mask, triangle, 255, shift=3)
        soft = cv2.GaussianBlur(mask, (0, 0), self.camera.size[0] / 240)
        return soft.astype(np.float32) / 255 * self._on_ground


def _noise(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Smooth noise in [-1, 1] over two coordinates, three octaves of a random table."""
    table = random.uniform(-1, 1, (256, 256)).astype(np.float32)
    total = np.zeros(u.shape, np.float32)
    for octave in range(3):
        scale = 2.0**octave
        total += (
            cv2.remap(
                table,
                np.mod(u * scale, 255).astype(np.float32),
                np.mod(v * scale, 255).astype(np.float32),
                cv2.INTER_LINEAR,
            )
            / scale
        )
    return total / 1.75


class Painter:
    """Draws dressed people over the field with pyrender; one OpenGL context, one thread."""

    def __init__(self, field: Field) -> None:
        import pyglet

        pyglet.options["headless"] = True
        import pyrender

        self._gl = pyrender
        self.field = field
        height, width = field.camera.size
        self._offscreen = pyrender.OffscreenRenderer(width, height)
        lens = field.camera.intrinsics
        self._camera = pyrender.IntrinsicsCamera(
            lens[0, 0], lens[1, 1], lens[0, 2] + 0.5, lens[1, 2] + 0.5, znear=0.1, zfar=200
        )

    def layer(
        self, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, ball: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Linear colour (H, W, 3) and depth (H, W) in metres (0: nothing) of a person and a ball,
        world metres."""
        import trimesh

        camera, gl = self.field.camera, self._gl
        scene = gl.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0.42, 0.45, 0.52))
        flip = np.diag([1.0, -1.0, -1.0])
        mesh = trimesh.Trimesh(
            camera.see(vertices) @ flip, faces, vertex_colors=colors, process=False
        )
        scene.add(gl.Mesh.from_trimesh(mesh, smooth=True))
        if ball is not None:
            sphere = trimesh.creation.icosphere(2, _BALL_M)
            sphere.vertices = camera.see(sphere.vertices + ball) @ flip
            sphere.visual.vertex_colors = [240, 238, 232, 255]
            scene.add(gl.Mesh.from_trimesh(sphere, smooth=True))
        scene.add(self._camera, pose=np.eye(4))
        towards = flip @ camera.rotation @ self.field.sun
        z = towards / np.linalg.norm(towards)
        x = np.cross([0.1, 1.0, 0.2], z)
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3, :3] = np.stack((x, np.cross(z, x), z), 1)
        scene.add(gl.DirectionalLight(color=(1.0, 0.96, 0.88), intensity=3.2), pose=pose)
        color, depth = self._offscreen.render(scene)
        return color[..., :3].astype(np.float32) / 255, depth

    def close(self) -> None:
        self._offscreen.delete()


def paint_frame(painter: Painter, poses: list, faces: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """One picture (H, W, 3) in [0, 1]: the mean of sub-frames, each ``poses`` entry being
    (vertices (V, 3), ball (3,) or None) at its instant."""
    field = painter.field
    total = np.zeros_like(field.picture)
    for vertices, ball in poses:
        color, depth = painter.layer(vertices, faces, colors, ball)
        cover = cv2.GaussianBlur((depth > 0).astype(np.float32), (0, 0), 0.6)[..., None]
        shade = 1 - 0.5 * field.shadow(vertices, faces)[..., None]
        # Colours run a pixel over the edge, so that the softened edge has no dark rim.
        spread = np.where(depth[..., None] > 0, color, cv2.dilate(color, np.ones((3, 3))))
        total += field.picture * shade * (1 - cover) + spread * cover
    return total / len(poses)


def shutter_times(time_s: float, fps: float) -> np.ndarray:
    """The instants of a frame's sub-frames, its own time in their middle."""
    spread = (np.arange(SUBFRAMES) - (SUBFRAMES - 1) / 2) / SUBFRAMES
    return time_s + spread * _SHUTTER / fps
