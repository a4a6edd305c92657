"""Synthetic people for training: their motions, clothes and places before a camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.body.kinematics import vertex_normals
from pipeline.body.model import BodyModel

SIDE = 416
"""Height and width of the pictures, pixels."""
ARMS, LEGS = (13, 14, 16, 17, 18, 19, 20, 21), (1, 2, 4, 5, 7, 8, 10, 11)
MIRRORED_JOINTS = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20)


@dataclass(frozen=True, eq=False)
class Motions:
    """Captured motion: ``poses`` (N, 22, 3) at 30 Hz; the ``start`` and the ``lengths`` of each
    recording in them; and the ``share`` with which each is drawn."""

    poses: np.ndarray
    start: np.ndarray
    lengths: np.ndarray
    share: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Motions:
        with np.load(path) as file:
            poses, lengths, names = file["poses"], file["lengths"], file["names"]
        # Limited, or a few long recordings would be drawn most of the time.
        weight = np.minimum(lengths.astype(float), 750)
        # There are many walks, and they are much alike.
        weight[["walking" in name for name in names]] *= 0.25
        start = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        return cls(poses, start, lengths, weight / weight.sum())

    def captured(self, random: np.random.Generator, frames: int) -> np.ndarray:
        """Return a part (frames, 22, 3) of one recording, forwards or backwards, at its speed or
        twice."""
        which = random.choice(len(self.lengths), p=self.share)
        step = random.choice([1, 1, 1, 2])
        count = min(frames, (self.lengths[which] - 1) // step + 1)
        first = random.integers(0, self.lengths[which] - (count - 1) * step)
        poses = self.poses[self.start[which] + first + step * np.arange(count)].astype(np.float64)
        poses = poses[::-1] if random.random() < 0.25 else poses
        # Forth and back, so that a short recording goes on without a jump.
        there_and_back = np.concatenate([poses, poses[::-1]])
        return np.concatenate([there_and_back] * (frames // len(there_and_back) + 1))[:frames]

    def made_up(self, random: np.random.Generator, frames: int) -> np.ndarray:
        """Return a motion (frames, 22, 3) from one captured pose to another, at any speed."""
        times = [0.0]
        while times[-1] < frames:
            times.append(times[-1] + random.uniform(3, 20))
        alike = random.random() < 0.5
        which = random.choice(len(self.lengths), p=self.share)
        rows = []
        for _ in times:
            which = which if alike else random.choice(len(self.lengths), p=self.share)
            rows.append(self.start[which] + random.integers(0, self.lengths[which]))
        keys = self.poses[rows].astype(np.float64)
        at, frame = np.array(times), np.arange(frames)
        key = np.clip(np.searchsorted(at, frame, "right") - 1, 0, len(at) - 2)
        share = (frame - at[key]) / (at[key + 1] - at[key])
        # Smooth at the keys: bodies do not change their speed at once.
        share = share * share * (3 - 2 * share)
        out = np.zeros((frames, 22, 3))
        for joint in range(22):
            turns = Rotation.from_rotvec(keys[:, joint])
            if joint == 0:
                # Each facing continues the last one, so that no person spins from key to key.
                ahead = turns.as_matrix()[:, :, 2]
                wanted = np.cumsum(random.normal(0, 0.7, len(at)))
                turns = _about_y(wanted - np.arctan2(ahead[:, 0], ahead[:, 2])) * turns
            change = (turns[key].inv() * turns[key + 1]).as_rotvec()
            out[:, joint] = (turns[key] * Rotation.from_rotvec(change * share[:, None])).as_rotvec()
        return out


def _about_y(angle: np.ndarray) -> Rotation:
    zero = np.zeros_like(angle)
    return Rotation.from_rotvec(np.stack((zero, angle, zero), 1))


def moving(motions: Motions, random: np.random.Generator, frames: int) -> np.ndarray:
    """Return random motion as rotation vectors (frames, 22, 3), y up: recordings are mixed, limbs
    are bent, and some are mirrored."""

    def some() -> np.ndarray:
        kind = motions.made_up if random.random() < 0.3 else motions.captured
        return kind(random, frames)

    poses = some()
    if random.random() < 0.45:
        taken = list(ARMS if random.random() < 0.6 else LEGS)
        poses[:, taken] = some()[:, taken]
    if random.random() < 0.35:
        joint = random.choice([1, 2, 16, 17, 18, 19, 4, 5, 3, 6])
        axis = random.normal(size=3)
        sway = np.sin(np.linspace(0, random.uniform(0, 6), frames) + random.uniform(0, 6))
        bend = 0.5 * random.normal() * sway[:, None] * axis / np.linalg.norm(axis)
        turned = Rotation.from_rotvec(bend) * Rotation.from_rotvec(poses[:, joint])
        poses[:, joint] = turned.as_rotvec()
    if random.random() < 0.5:
        poses = poses[:, MIRRORED_JOINTS] * [1, -1, -1]
    return poses


def before_camera(
    poses: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place a random camera: return the motion (T, 22, 3) in its axes, K (3, 3) and the body's
    place (T, 3). It looks from any side, a little from above or below, from near or far."""
    frames = len(poses)
    spin = np.linspace(0, 2.5 * random.normal(), frames) if random.random() < 0.25 else 0.0
    tilt = Rotation.from_euler("x", 186 + 12 * random.normal(), degrees=True)
    roll = Rotation.from_euler("z", 5 * random.normal(), degrees=True)
    turned = tilt * roll * _about_y(np.zeros(frames) + random.uniform(-np.pi, np.pi) + spin)
    poses = poses.copy()
    poses[:, 0] = (turned * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    focal = random.uniform(0.8, 1.9) * SIDE * 2**0.5
    centre = (SIDE - 1) / 2
    lens = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
    away = focal * 1.7 / (random.uniform(0.42, 0.8) * SIDE)
    across = away * SIDE / focal
    sway = np.cumsum(random.normal(size=(frames, 3)) * [0.006, 0.004, 0.02], 0)
    place = sway * random.uniform(0, 2)
    place += [0.09 * across * random.normal(), 0.05 * across * random.normal() - 0.05, away]
    if random.random() < 0.08:
        place[:, 1] += 0.32 * across  # feet below the picture's edge
    return poses, lens, place


class Wardrobe:
    """Clothes, hair and faces painted onto a body model's vertices."""

    def __init__(self, body: BodyModel) -> None:
        self.part = body.weights.numpy().argmax(1)
        self.rest = body.v_template.numpy()
        self.normals = vertex_normals(body.v_template, body.faces).numpy()
        self.landmarks = (body.landmark_regressor @ body.v_template).numpy()

    def dress(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return colours (V, 3) in [0, 1] and the distance of the cloth from the skin (V,),
        metres."""

        def cloth() -> np.ndarray:
            if random.random() < 0.7:
                return random.random(3) * random.uniform(0.2, 1)
            return np.full(3, random.uniform(0.03, 0.95))

        part, rest, off = self.part, self.rest, np.zeros(len(self.rest))
        tone = [1, random.uniform(0.85, 1.05), random.uniform(0.75, 1.05)]
        colors = np.tile(
            np.array([0.85, 0.62, 0.48]) * random.uniform(0.25, 1.1) * tone, (len(rest), 1)
        )
        shirt, trousers, sleeves = cloth(), cloth(), random.choice(3)
        thick, wide, long_legs = *random.uniform(0.002, 0.03, 2), random.random() > 0.35
        torso, shins = np.isin(part, [3, 6, 9, 13, 14]), np.isin(part, [4, 5])
        for where, worn in ((torso, True), (np.isin(part, [16, 17]), sleeves > 0),
                            (np.isin(part, [18, 19]), sleeves > 1)):  # fmt: skip
            if worn:
                colors[where], off[where] = shirt, thick
        half = 0.5 * (self.landmarks[23, 1] + self.landmarks[25, 1])
        legs = np.isin(part, [0, 1, 2]) & (long_legs | (rest[:, 1] > half)) | (shins & long_legs)
        colors[legs], off[legs] = (shirt if random.random() < 0.2 else trousers), wide
        if random.random() < 0.85:
            feet = np.isin(part, [7, 8, 10, 11])
            colors[feet], off[feet] = cloth(), 0.008
        if random.random() < 0.3:
            colors[torso & (np.sin(rest[:, 1] * random.uniform(30, 120)) > 0)] = cloth()
        self._head(random, colors, off, cloth)
        colors *= 1 + 0.06 * random.normal(size=(len(rest), 1))
        return colors.clip(0.01, 1), off

    def _head(self, random, colors, off, cloth) -> None:
        rest, marks, head = self.rest, self.landmarks, self.part == 15
        eyes, ears = marks[[2, 5]].mean(0), marks[[7, 8]].mean(0)
        hair = np.array([0.25, 0.17, 0.1]) * random.uniform(0.1, 2.5)
        low = marks[0, 1] - random.uniform(0, 0.12)
        back = (rest[:, 2] < ears[2]) & (rest[:, 1] > low)
        hairy = head & ((rest[:, 1] > eyes[1] + 0.045) | back)
        colors[hairy], off[hairy] = hair, random.uniform(0, 0.03)

        def near(point: np.ndarray, spread: list[float]) -> np.ndarray:
            return np.linalg.norm((rest - point) / spread, axis=1)

        for eye in marks[[2, 5]]:
            colors[near(eye + [0, 0, 0.005], [1, 1, 1]) < 0.018] = [0.08, 0.06, 0.05]
            colors[near(eye + [0, 0.022, 0], [2, 0.5, 1.5]) < 0.012] = hair
        colors[near(marks[[9, 10]].mean(0), [2.2, 0.8, 1.5]) < 0.013] = [0.5, 0.2, 0.18]
        if random.random() < 0.2:
            cap = head & (rest[:, 1] > eyes[1] + 0.03)
            colors[cap], off[cap] = cloth(), 0.012


def backdrop(random: np.random.Generator) -> np.ndarray:
    """Return a random background (SIDE, SIDE, 3), float32 in [0, 1]: gradients, noise, boxes and
    blur."""
    size = (SIDE, SIDE)
    image = cv2.resize(random.random((2, 1, 3)) * random.uniform(0.3, 1), size)
    for cells in (3, 9, 30, 100):
        grey = random.normal(size=(cells, cells, 3)).mean(2, keepdims=True) * np.ones(3)
        noise = grey * random.uniform(0, 0.12)
        noise += random.normal(size=(cells, cells, 3)) * random.uniform(0, 0.05)
        image = image + cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(random.integers(0, 14)):
        x, y = (int(v) for v in random.integers(0, SIDE, 2))
        wide, high = (int(v) for v in random.integers(10, SIDE // 2, 2))
        filled = -1 if random.random() < 0.7 else 3
        cv2.rectangle(image, (x, y), (x + wide, y + high), random.random(3).tolist(), filled)
    return cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 5)).clip(0, 1).astype(np.float32)
