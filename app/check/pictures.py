"""Pictures of people with a known truth: the free body, drawn before a wall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from pipeline.body.load import load_body
from pipeline.body.model import BodyModel
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.skeleton import BLAZEPOSE_33, COCO_17, JOINT_NAMES
from render.overlay import make_renderer

HEIGHT, WIDTH = 720, 960
POINTS = tuple(name for name in COCO_17.names if name not in COCO_17.head)
"""The points whose places are known: shoulders, elbows, wrists, hips, knees and ankles."""
_MARGIN = 0.05
"""Around a person's box, in parts of it, as a detector leaves it."""
_SKIN, _WALL, _FLOOR = (0.72, 0.55, 0.45), (176, 170, 160), (118, 104, 92)
_SEED = 19

Turns = Mapping[str, tuple[float, float, float]]
"""Rotations of SMPL's joints, axis-angle in degrees."""


@dataclass(frozen=True)
class _Scene:
    """How a person stands: the side turned to the camera, the place on the floor, the pose."""

    yaw_deg: float
    x_m: float
    depth_m: float
    pose: Turns


_SCENES = (
    _Scene(0, 0.1, 4.6, {"left_shoulder": (0, 0, -68), "right_shoulder": (0, 0, 68)}),
    _Scene(35, -0.7, 5.2, {
        "left_shoulder": (0, -30, -66), "right_shoulder": (0, -35, 66),
        "left_hip": (-28, 0, 0), "right_hip": (22, 0, 0), "right_knee": (35, 0, 0),
        "left_elbow": (0, -25, 0), "right_elbow": (0, 25, 0),
    }),
    _Scene(-30, 0.8, 4.9, {"left_shoulder": (0, 0, -8), "right_shoulder": (0, 0, 12)}),
    _Scene(155, 0.2, 4.3, {
        "left_shoulder": (0, 0, -60), "right_shoulder": (0, 0, 55),
        "left_elbow": (0, -70, 0), "right_elbow": (0, 60, 0),
        "left_hip": (-20, 0, 0), "left_knee": (30, 0, 0),
    }),
)  # fmt: skip
_EYE_M, _WALL_M = 1.05, 8.0
"""The camera's height over the floor, and how far the wall is away."""


@dataclass(frozen=True, eq=False)
class DrawnPerson:
    """A picture of one person, and the truth about it.

    Attributes:
        image: RGB uint8 (H, W, 3).
        intrinsics: K (3, 3), pixels.
        box: (4,) x0, y0, x1, y1, pixels.
        points_px: (12, 2), the places of `POINTS`.
        depth_m: How far the hips are away.
        height_m: From the lowest to the highest point of the body.
    """

    image: np.ndarray
    intrinsics: np.ndarray
    box: np.ndarray
    points_px: np.ndarray
    depth_m: float
    height_m: float

    @property
    def height_px(self) -> float:
        """The height of the body in the picture."""
        return self.height_m / self.depth_m * float(self.intrinsics[1, 1])


def draw_people() -> list[DrawnPerson]:
    """Return four pictures of people who stand and walk, seen from several sides."""
    body, renderer = load_body(), make_renderer("numba")
    intrinsics = default_intrinsics(HEIGHT, WIDTH)
    wall = _backdrop(intrinsics)
    people = []
    for scene in _SCENES:
        vertices, landmarks = _placed(body, scene)
        image = renderer.draw(
            wall, vertices[None], body.faces, np.array([_SKIN]), intrinsics, alpha=1
        )
        pixels = project(vertices, intrinsics)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        margin = _MARGIN * (high - low)
        points = landmarks[BLAZEPOSE_33.indices(*POINTS)]
        people.append(
            DrawnPerson(
                image=image,
                intrinsics=intrinsics,
                box=np.concatenate([low - margin, high + margin]),
                points_px=project(points, intrinsics),
                depth_m=float(landmarks[list(BLAZEPOSE_33.hips), 2].mean()),
                height_m=float(np.ptp(vertices[:, 1])),
            )
        )
    renderer.close()
    return people


def _placed(body: BodyModel, scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """The drawn mesh and the landmarks of a scene, in the camera's axes."""
    turns = torch.zeros(24, 3)
    turns[0, 1] = scene.yaw_deg
    for joint, angles in scene.pose.items():
        turns[JOINT_NAMES.index(joint)] = torch.tensor(angles)
    pose = turns.deg2rad().flatten()[None]
    posed = body(torch.zeros(1, 10), pose[:, :3], pose[:, 3:], torch.zeros(1, 3))
    # The body has y up and looks along z; the camera has y down and looks at it.
    vertices, landmarks = (
        points[0].numpy() * np.array([1, -1, -1], np.float32)
        for points in (posed.vertices_m, posed.landmarks_m)
    )
    place = np.array([scene.x_m, _EYE_M - vertices[:, 1].max(), scene.depth_m], np.float32)
    return vertices + place, landmarks + place


def _backdrop(intrinsics: np.ndarray) -> np.ndarray:
    """A wall and a floor (H, W, 3) uint8, slightly uneven: a flat colour is no photograph."""
    foot = int(intrinsics[1, 2] + intrinsics[1, 1] * _EYE_M / _WALL_M)
    image = np.empty((HEIGHT, WIDTH, 3), np.float32)
    image[:foot], image[foot:] = _WALL, _FLOOR
    noise = np.random.default_rng(_SEED).normal(size=(HEIGHT // 8, WIDTH // 8)).astype(np.float32)
    image += 8 * cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
