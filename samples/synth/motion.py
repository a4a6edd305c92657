"""A pitch as key poses: where trunk, chest and limbs point, and a smooth way between them.

World axes: x the way the ball flies, y up, z towards the camera; a right-hander's set position
faces +z. Times and angles follow the phases of overarm pitching (Fleisig et al., Kinematic and
kinetic comparison of baseball pitching, J. Appl. Biomech. 1999): stride about 80% of stature, trunk
rotating ahead of the arm, 30 ms from full external rotation to release.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, RotationSpline

from pipeline.people import PARENTS

RELEASE_S = 2.0


@dataclass(frozen=True)
class Key:
    """One key pose. Yaws in degrees about y (0 faces the camera, 90 the way of the ball),
    ``lean`` degrees forward along the chest's own facing and ``side`` to its left; limb
    directions are world vectors: upper arm, forearm, thigh, shin."""

    time_s: float
    hips: float
    chest: float
    lean: float
    side: float
    left_arm: tuple
    right_arm: tuple
    left_leg: tuple
    right_leg: tuple
    head: float = 60.0
    left_foot: float = 0.0
    right_foot: float = 0.0
    left_toes: float = 0.0
    right_toes: float = 0.0


# left_foot/right_foot: yaw of the foot in degrees; *_toes: how far the toes point down.
PITCH = (
    Key(
        0.0,
        0,
        0,
        4,
        0,
        ((0.35, -0.9, 0.25), (-0.5, 0.35, 0.75)),
        ((-0.35, -0.9, 0.25), (0.5, 0.35, 0.75)),
        ((0.18, -1, 0.02), (0.05, -1, -0.05)),
        ((-0.18, -1, 0.02), (-0.05, -1, -0.05)),
        55,
    ),
    Key(
        0.55,
        0,
        0,
        5,
        0,
        ((0.35, -0.9, 0.3), (-0.5, 0.4, 0.75)),
        ((-0.35, -0.9, 0.3), (0.5, 0.4, 0.75)),
        ((0.2, -1, 0.05), (0.03, -1, -0.05)),
        ((-0.15, -1, 0.02), (-0.05, -1, -0.05)),
        60,
    ),
    Key(
        1.10,
        -22,
        -25,
        3,
        2,
        ((0.3, -0.85, 0.45), (-0.5, 0.45, 0.7)),
        ((-0.4, -0.85, 0.35), (0.45, 0.45, 0.75)),
        ((0.28, -0.05, 1.0), (-0.1, -1, -0.12)),
        ((-0.03, -1, 0.06), (-0.02, -1, -0.1)),
        70,
        -20,
        0,
        30,
    ),
    Key(
        1.38,
        -10,
        -20,
        2,
        -4,
        ((0.75, -0.55, 0.35), (0.5, -0.3, 0.75)),
        ((-0.6, -0.8, 0.1), (-0.3, -0.9, 0.3)),
        ((0.75, -0.6, 0.45), (0.3, -0.95, 0.05)),
        ((0.15, -0.97, 0.2), (0.3, -0.9, -0.25)),
        80,
        10,
        0,
        25,
    ),
    Key(
        1.62,
        5,
        -12,
        0,
        -6,
        ((1.0, 0.05, 0.15), (0.9, 0.15, 0.35)),
        ((-0.95, -0.05, -0.15), (-0.45, 0.35, 0.35)),
        ((0.9, -0.45, 0.2), (0.75, -0.66, 0.0)),
        ((-0.1, -0.95, 0.28), (-0.55, -0.75, -0.25)),
        85,
        45,
        0,
        5,
    ),
    Key(
        1.80,
        32,
        0,
        0,
        -6,
        ((0.95, 0.1, 0.3), (0.6, 0.2, 0.75)),
        ((-0.96, 0.1, -0.2), (0.05, 1.0, 0.1)),
        ((0.86, -0.5, 0.1), (0.5, -0.86, 0.0)),
        ((-0.35, -0.9, 0.2), (-0.72, -0.65, -0.15)),
        88,
        75,
        10,
        0,
        10,
    ),
    Key(
        1.92,
        72,
        58,
        -6,
        6,
        ((0.5, -0.45, 0.6), (-0.3, 0.35, 0.85)),
        ((-0.3, 0.2, -0.93), (-0.85, 0.5, -0.1)),
        ((0.75, -0.65, 0.05), (0.35, -0.93, 0.0)),
        ((-0.6, -0.8, 0.05), (-0.8, -0.55, -0.1)),
        90,
        85,
        40,
        0,
        40,
    ),
    Key(
        1.965,
        82,
        86,
        12,
        14,
        ((0.25, -0.7, 0.6), (-0.2, 0.5, 0.8)),
        ((0.25, 0.42, -0.87), (0.0, 0.9, -0.35)),
        ((0.7, -0.7, 0.03), (0.28, -0.95, 0.0)),
        ((-0.66, -0.75, 0.0), (-0.85, -0.5, -0.1)),
        90,
        88,
        55,
        0,
        50,
    ),
    Key(
        2.0,
        86,
        98,
        24,
        16,
        ((0.1, -0.8, 0.6), (-0.1, 0.5, 0.85)),
        ((0.62, 0.4, -0.67), (0.72, 0.6, -0.3)),
        ((0.66, -0.74, 0.03), (0.2, -0.97, 0.0)),
        ((-0.68, -0.72, 0.0), (-0.88, -0.45, -0.1)),
        90,
        88,
        60,
        0,
        55,
    ),
    Key(
        2.06,
        92,
        112,
        40,
        14,
        ((-0.1, -0.85, 0.5), (-0.2, 0.3, 0.9)),
        ((0.85, -0.35, 0.1), (0.85, -0.5, 0.25)),
        ((0.6, -0.8, 0.03), (0.1, -0.99, 0.0)),
        ((-0.72, -0.68, 0.0), (-0.92, -0.38, -0.1)),
        92,
        88,
        65,
        0,
        60,
    ),
    Key(
        2.18,
        100,
        130,
        58,
        8,
        ((-0.35, -0.75, 0.5), (0.2, -0.2, 0.95)),
        ((0.45, -0.85, 0.45), (0.2, -0.75, 0.6)),
        ((0.55, -0.83, 0.05), (0.0, -1.0, 0.0)),
        ((-0.85, -0.5, 0.05), (-0.97, -0.1, -0.1)),
        95,
        88,
        75,
        0,
        70,
    ),
    Key(
        2.45,
        100,
        125,
        55,
        0,
        ((-0.2, -0.85, 0.5), (0.4, -0.5, 0.75)),
        ((0.2, -0.9, 0.5), (0.0, -0.8, 0.6)),
        ((0.5, -0.86, 0.05), (-0.05, -1.0, 0.0)),
        ((-0.4, -0.85, 0.3), (-0.85, -0.5, 0.1)),
        92,
        88,
        85,
        0,
        50,
    ),
    Key(
        2.85,
        90,
        95,
        35,
        0,
        ((0.25, -0.85, -0.35), (0.75, -0.1, 0.0)),
        ((0.3, -0.85, 0.4), (0.75, -0.15, -0.1)),
        ((0.45, -0.88, -0.12), (-0.1, -1.0, -0.02)),
        ((0.3, -0.93, 0.22), (-0.15, -0.99, 0.02)),
        90,
        88,
        90,
        0,
        10,
    ),
    Key(
        3.6,
        90,
        90,
        30,
        0,
        ((0.25, -0.85, -0.35), (0.8, 0.0, 0.05)),
        ((0.3, -0.85, 0.35), (0.8, 0.0, -0.05)),
        ((0.45, -0.88, -0.12), (-0.15, -1.0, -0.02)),
        ((0.42, -0.9, 0.18), (-0.15, -0.99, 0.02)),
        90,
        88,
        90,
        0,
        0,
    ),
)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _frame(along: np.ndarray, beside: np.ndarray) -> np.ndarray:
    x = _unit(along)
    y = _unit(beside - (beside @ x) * x)
    return np.stack((x, y, np.cross(x, y)), 1)


def key_rotations(key: Key, rest_joints: np.ndarray) -> np.ndarray:
    """World rotations (24, 3, 3) of SMPL's joints for a key pose of a body with these joints at
    rest (24, 3)."""
    euler = Rotation.from_euler
    hips = euler("yxz", (key.hips, 0.35 * key.lean, -0.35 * key.side), degrees=True)
    chest = euler("yxz", (key.chest, key.lean, -key.side), degrees=True)
    world = np.tile(np.eye(3), (24, 1, 1))
    world[0] = hips.as_matrix()
    between = (hips.inv() * chest).as_rotvec()
    for joint, part in ((3, 1 / 3), (6, 2 / 3), (9, 1.0)):
        world[joint] = (hips * Rotation.from_rotvec(part * between)).as_matrix()
    head = euler("yx", (key.head, 0.25 * key.lean), degrees=True)
    neck = chest * Rotation.from_rotvec(0.45 * (chest.inv() * head).as_rotvec())
    world[12], world[15] = neck.as_matrix(), head.as_matrix()
    limbs = (
        (key.left_arm, 9, (13, 16, 18, 20), (0.0, -1.0, 0.0)),
        (key.right_arm, 9, (14, 17, 19, 21), (0.0, 1.0, 0.0)),
        (key.left_leg, 0, (None, 1, 4, 7), (1.0, 0.0, 0.0)),
        (key.right_leg, 0, (None, 2, 5, 8), (1.0, 0.0, 0.0)),
    )
    for (upper, lower), base, (collar, a, b, c), hinge in limbs:
        top, end = _unit(np.array(upper, float)), _unit(np.array(lower, float))
        rest_top, rest_end = rest_joints[b] - rest_joints[a], rest_joints[c] - rest_joints[b]
        bend = np.cross(top, end)
        carried = world[base] @ np.array(hinge)
        trust = np.clip((np.linalg.norm(bend) - 0.05) / 0.25, 0, 1)
        axis = trust * _unit(bend + 1e-9) + (1 - trust) * carried
        world[a] = _frame(top, axis) @ _frame(rest_top, np.array(hinge)).T
        world[b] = _frame(end, axis) @ _frame(rest_end, np.array(hinge)).T
        if collar is None:
            continue
        # A raised arm takes the collar a third of the way along.
        lift = Rotation.from_matrix(world[base].T @ world[a]).as_rotvec() * [0.0, 0.12, 0.2]
        world[collar] = world[base] @ Rotation.from_rotvec(lift).as_matrix()
        world[c] = world[c + 2] = world[b]
    for ankle, toe, yaw, down in (
        (7, 10, key.left_foot, key.left_toes),
        (8, 11, key.right_foot, key.right_toes),
    ):
        world[ankle] = euler("yx", (yaw, down), degrees=True).as_matrix()
        world[toe] = euler("yx", (yaw, 0.6 * down), degrees=True).as_matrix()
    return world


class Motion:
    """A pitch by a body with joints ``rest_joints`` (24, 3) metres, at any time in seconds.

    ``tempo`` stretches time about the release. The planted foot does not slide: the right one
    until the stride's end, the left one from then on.
    """

    keys = PITCH
    seconds = PITCH[-1].time_s

    def __init__(self, rest_joints: np.ndarray, tempo: float = 1.0) -> None:
        self._rest = rest_joints
        self._tempo = tempo
        times = [key.time_s for key in self.keys]
        world = np.array([key_rotations(key, rest_joints) for key in self.keys])
        local = world.copy()
        for joint in range(1, 24):
            local[:, joint] = np.swapaxes(world[:, PARENTS[joint]], -1, -2) @ world[:, joint]
        self._splines = [
            RotationSpline(times, Rotation.from_matrix(local[:, joint])) for joint in range(24)
        ]
        self._right = PchipInterpolator([0, 1.70, 1.84, 3.6], [1.0, 1.0, 0.0, 0.0])
        contact = self._joints_at(1.80)
        stance = self._joints_at(0.0)
        self._anchor = {8: stance[8] * [1, 0, 1], 7: None}
        offset = self._anchor[8] - contact[8] * [1, 0, 1]
        self._anchor[7] = contact[7] * [1, 0, 1] + offset

    def _joints_at(self, time_s: float) -> np.ndarray:
        return self._forward(self.rotations(time_s))

    def _forward(self, local: np.ndarray) -> np.ndarray:
        world, place = local.copy(), self._rest.copy()
        for joint in range(1, 24):
            parent = PARENTS[joint]
            world[joint] = world[parent] @ local[joint]
            place[joint] = place[parent] + world[parent] @ (self._rest[joint] - self._rest[parent])
        return place

    def rotations(self, time_s: float) -> np.ndarray:
        """Local rotations (24, 3, 3) at a time, the pelvis's in the world."""
        time_s = min(max(time_s, 0.0), self.seconds)
        return np.array([spline([time_s]).as_matrix()[0] for spline in self._splines])

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Local rotations (24, 3, 3) and the translation on the ground plane (3,), y being 0."""
        time_s = RELEASE_S + (time_s - RELEASE_S / self._tempo) * self._tempo
        local = self.rotations(time_s)
        joints = self._forward(local)
        right = float(self._right(min(max(time_s, 0.0), self.seconds)))
        shift = right * (self._anchor[8] - joints[8]) + (1 - right) * (self._anchor[7] - joints[7])
        return local, shift * [1, 0, 1]
