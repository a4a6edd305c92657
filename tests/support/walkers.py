"""People who walk and stand on a floor, seen by a camera of any pose, with a fit's kinds of error.

They are made of geometry alone, so a test knows the floor and gravity exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.core.skeleton import JOINT_NAMES

J = {name: number for number, name in enumerate(JOINT_NAMES)}
FPS = 30.0
_THIGH_M, _SHIN_M, _HIP_M = 0.4, 0.41, 0.08
_ANKLE_M, _TOE_M, _FOOT_M = 0.078, 0.027, 0.13
_STEP_S = 0.55
_SOLE = {"ankle": _ANKLE_M, "foot": _TOE_M}


def walk(frames: int, speed_m_s: float, heading: float, start_m: np.ndarray) -> np.ndarray:
    """The joints (frames, 24, 3) of a person in a world with z up whose floor is z = 0.

    Args:
        frames: At `FPS`.
        speed_m_s: 0 for a person who stands.
        heading: The direction of the walk in the plane, radians.
        start_m: Where the walk begins (2,).
    """
    time_s = np.arange(frames) / FPS
    forward = np.array([np.cos(heading), np.sin(heading), 0.0])
    left = np.array([-forward[1], forward[0], 0.0])
    along = speed_m_s * time_s
    base = np.array([*start_m, 0.0]) + along[:, None] * forward
    joints = np.zeros((frames, 24, 3))
    stride = 2 * speed_m_s * _STEP_S
    # The hips sink so far that the longest reach of a leg is nearly straight.
    reach = stride / 4 + 0.02
    hip_height = _ANKLE_M + np.sqrt((0.995 * (_THIGH_M + _SHIN_M)) ** 2 - reach**2)
    pelvis = base + [0, 0, hip_height]
    for side, sign, shift in (("left", 1, 0.0), ("right", -1, 0.5)):
        phase = time_s / (2 * _STEP_S) + shift
        cycle, part = np.floor(phase), phase % 1
        if not speed_m_s:
            part = np.zeros(frames)
        # It stands for the first half of its cycle, then swings one stride on.
        swing = np.clip(2 * part - 1, 0, 1)
        place = (cycle - shift) * stride + stride / 4 if speed_m_s else np.zeros(frames)
        place = place + stride * (swing - np.sin(2 * np.pi * swing) / (2 * np.pi))
        lift = 0.14 * np.sin(np.pi * swing) ** 2
        foot = np.array([*start_m, 0.0]) + place[:, None] * forward + sign * _HIP_M * left
        foot[:, 2] += lift
        hip = pelvis + sign * _HIP_M * left
        ankle = foot + [0, 0, _ANKLE_M]
        joints[:, J[f"{side}_hip"]] = hip
        joints[:, J[f"{side}_ankle"]] = ankle
        joints[:, J[f"{side}_foot"]] = foot + [0, 0, _TOE_M] + _FOOT_M * forward
        joints[:, J[f"{side}_knee"]] = _knee(hip, ankle, forward)
        shoulder = pelvis + [0, 0, 0.46] + sign * 0.17 * left
        joints[:, J[f"{side}_collar"]] = pelvis + [0, 0, 0.42] + sign * 0.08 * left
        joints[:, J[f"{side}_shoulder"]] = shoulder
        for number, part_name in enumerate(("elbow", "wrist", "hand"), 1):
            joints[:, J[f"{side}_{part_name}"]] = shoulder - [0, 0, 0.25 * number]
    trunk = {"pelvis": 0, "spine1": 0.11, "spine2": 0.24, "spine3": 0.3, "neck": 0.51, "head": 0.6}
    for name, height in trunk.items():
        joints[:, J[name]] = pelvis + [0, 0, height] + 0.04 * height * forward
    return joints


def _knee(hip: np.ndarray, ankle: np.ndarray, forward: np.ndarray) -> np.ndarray:
    apart = ankle - hip
    length = np.minimum(np.linalg.norm(apart, axis=1, keepdims=True), _THIGH_M + _SHIN_M)
    along = (length**2 + _THIGH_M**2 - _SHIN_M**2) / (2 * length)
    out = np.sqrt(np.maximum(_THIGH_M**2 - along**2, 0))
    unit = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    bend = forward - (unit @ forward)[:, None] * unit
    return hip + along * unit + out * bend / np.linalg.norm(bend, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Seen:
    """People as a fit finds them: `estimate_ground`'s arguments, and the truth.

    Attributes:
        joints_m: (N, 24, 3) in the camera's axes, by frame, then track.
        true_m: The same without errors.
    """

    joints_m: np.ndarray
    visibility: np.ndarray
    track: np.ndarray
    pts_s: np.ndarray
    true_m: np.ndarray

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        return self.joints_m, self.visibility, self.track, self.pts_s


def see(
    people_m: list[np.ndarray], up: np.ndarray, height_m: float, noise: float, seed: int
) -> Seen:
    """What a camera sees of people of a world with z up, whose y is the camera's forward.

    Args:
        people_m: Each person's joints (frames, 24, 3).
        up: The direction up (3,) in the camera's axes.
        height_m: The camera's height.
        noise: 1 for the errors of a fit, 0 for none: a size that is wrong by 5 %, a distance by
            3 %, a lean towards the camera by 2.5 degrees, joints by 1.5 cm across the ray and 3 cm
            along it (standard deviations).
        seed: Of the errors.
    """
    rng = np.random.default_rng(seed)
    along = np.array([0, 0, 1.0]) - up[2] * up
    along /= np.linalg.norm(along)
    to_world = np.stack((np.cross(along, up), along, up))
    seen, true = [], []
    for joints_m in people_m:
        camera_m = (joints_m - [0, 0, height_m]) @ to_world
        true.append(camera_m)
        seen.append(_with_errors(camera_m, noise, rng))
    frames = len(people_m[0])
    count = len(people_m)
    return Seen(
        np.stack(seen, 1).reshape(-1, 24, 3),
        np.ones((frames * count, 24)),
        np.tile(np.arange(1, count + 1), frames),
        np.repeat(np.arange(frames) / FPS, count),
        np.stack(true, 1).reshape(-1, 24, 3),
    )


def _with_errors(camera_m: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    frames = len(camera_m)
    pelvis = camera_m[:, :1]
    ray = pelvis / np.linalg.norm(pelvis, axis=-1, keepdims=True)
    # A lean: a rotation about the axis across the ray and the body.
    across = np.cross(ray[:, 0], camera_m[:, J["neck"]] - pelvis[:, 0])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    lean = np.radians(noise * (rng.normal(0, 2.5) + _smooth(frames, 1, rng)[:, 0] * 1.5))
    turned = Rotation.from_rotvec(across * lean[:, None]).as_matrix()
    body = np.einsum("nij,nkj->nki", turned, camera_m - pelvis) + pelvis
    body += noise * 0.03 * _smooth(frames, 24, rng)[..., None] * ray
    body += noise * rng.normal(0, 0.015, body.shape)
    size = 1 + noise * rng.normal(0, 0.05)
    depth = 1 + noise * 0.03 * _smooth(frames, 1, rng)[:, 0]
    # Along each joint's ray, which is what a picture cannot tell.
    return body * (size * depth)[:, None, None]


def _smooth(frames: int, columns: int, rng: np.random.Generator, span: int = 20) -> np.ndarray:
    """Noise (frames, columns) of standard deviation 1 that changes within ``span`` frames."""
    white = rng.normal(size=(frames + 4 * span, columns))
    window = np.exp(-0.5 * (np.arange(-2 * span, 2 * span + 1) / span) ** 2)
    window /= np.linalg.norm(window)
    return np.stack([np.convolve(c, window, "valid")[:frames] for c in white.T], 1)


def scene(
    seed: int, kind: str, noise: float = 1.0, seconds: float = 6.0
) -> tuple[Seen, np.ndarray, float]:
    """A random camera and people before it: `Seen`, the direction up (3,), the camera's height.

    Args:
        seed: Of everything.
        kind: "stand" (one person on the spot), "walk" (one walker) or "group" (two to four).
        noise: As `see`.
        seconds: How long.
    """
    from pipeline.world.ground import up_of

    rng = np.random.default_rng(seed)
    while True:
        up = up_of(rng.uniform(-40, 40), rng.uniform(-10, 10))
        height_m = rng.uniform(0.5, 6)
        count = {"stand": 1, "walk": 1, "group": int(rng.integers(2, 5))}[kind]
        moves = [kind == "walk" or (kind == "group" and rng.random() < 0.7) for _ in range(count)]
        people = [
            walk(
                round(seconds * FPS),
                rng.uniform(0.8, 1.5) if moving else 0.0,
                rng.uniform(0, 2 * np.pi),
                np.array([rng.uniform(-3, 3), rng.uniform(3, 12)]),
            )
            for moving in moves
        ]
        found = see(people, up, height_m, noise, seed + 1)
        # The lens of a phone, upright: people leave its picture no further than this.
        angles = np.abs(np.arctan2(found.true_m[..., :2], found.true_m[..., 2:]))
        if np.degrees(angles).max() < 35:
            return found, up, height_m
