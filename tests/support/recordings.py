"""Recordings as `--poses` writes them, with made-up motion of a made-up skeleton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import World

FPS = 25.0
MIRROR = np.array([-1.0, 1.0, 1.0])


def _rest_m() -> np.ndarray:
    """SMPL-like joints at rest (24, 3): arms out along x, left at +x, y up, the face along +z."""
    middle = {
        "pelvis": (0, 0.94, 0), "spine1": (0, 1.05, -0.02), "spine2": (0, 1.19, -0.01),
        "spine3": (0, 1.25, 0), "neck": (0, 1.46, -0.03), "head": (0, 1.55, 0.02),
    }  # fmt: skip
    left = {
        "hip": (0.07, 0.85, 0), "knee": (0.1, 0.46, 0), "ankle": (0.09, 0.06, -0.04),
        "foot": (0.12, 0.01, 0.08), "collar": (0.08, 1.37, -0.02), "shoulder": (0.18, 1.41, -0.02),
        "elbow": (0.44, 1.4, -0.04), "wrist": (0.69, 1.4, -0.04), "hand": (0.77, 1.39, -0.05),
    }  # fmt: skip
    rows = []
    for name in JOINT_NAMES:
        side, _, part = name.partition("_")
        flip = MIRROR if side == "right" else np.ones(3)
        rows.append(np.array(middle[name]) if name in middle else np.array(left[part]) * flip)
    return np.array(rows, np.float64)


REST_M = _rest_m()


def pose_joints_m(pose: np.ndarray, rest_m: np.ndarray, pelvis_m: np.ndarray) -> np.ndarray:
    """The joints (N, 24, 3) of axis-angle poses (N, 24, 3), joint after joint."""
    joints = np.empty((len(pose), 24, 3))
    for row, (angles, pelvis) in enumerate(zip(pose, pelvis_m)):
        turns: list[Rotation] = []
        for joint, parent in enumerate(PARENTS):
            own = Rotation.from_rotvec(angles[joint])
            turns.append(own if parent < 0 else turns[parent] * own)
            bone = rest_m[joint] - rest_m[parent]
            joints[row, joint] = (
                pelvis if parent < 0 else joints[row, parent] + turns[parent].apply(bone)
            )
    return joints


def facing_camera() -> np.ndarray:
    """The ``global_orient`` (3,) of an upright person who faces the camera."""
    return np.array([np.pi, 0, 0])


def poses_arrays(
    frames: dict[int, list[int]],
    *,
    pose: np.ndarray | None = None,
    rest_m: np.ndarray = REST_M,
    fps: float | None = FPS,
    seed: int = 0,
) -> dict[str, Any]:
    """The arrays of a `--poses` file.

    Args:
        frames: The frames of each track.
        pose: The pose of every row (24, 3), or of each (N, 24, 3); random ones by default.
        rest_m: The skeleton at rest.
        fps: The file's rate; None where the source has none.
        seed: Of what is random.
    """
    rng = np.random.default_rng(seed)
    rows = sorted((frame, track) for track, own in frames.items() for frame in own)
    count = len(rows)
    poses = rng.normal(scale=0.4, size=(count, 24, 3))
    if pose is not None:
        poses[:] = pose
    pelvis_m = rng.normal(scale=0.2, size=(count, 3)) + [0, 0, 4]
    joints_m = pose_joints_m(poses, rest_m, pelvis_m)
    betas = {track: rng.normal(size=10) for track in frames}
    poses = poses.astype(np.float32).reshape(count, 72)

    def column(values: Any, *shape: int) -> np.ndarray:
        return np.asarray(values, np.float32).reshape(count, *shape)

    return {
        "frame": np.array([frame for frame, _ in rows], np.int64),
        "pts_s": np.array([frame / FPS for frame, _ in rows]),
        "track": np.array([track for _, track in rows], np.int64),
        "score": column(rng.uniform(size=count)),
        "global_orient": poses[:, :3],
        "body_pose": poses[:, 3:],
        "betas": column([betas[track] for _, track in rows], 10),
        "transl_m": column(pelvis_m - rest_m[0], 3),
        "joints_m": column(joints_m, 24, 3),
        "joints_px": column(joints_m[..., :2], 24, 2),
        "landmarks_m": column(rng.normal(size=(count, 33, 3)), 33, 3),
        "landmarks_px": column(rng.normal(size=(count, 33, 2)), 33, 2),
        "joint_visibility": column(rng.uniform(size=(count, 24)), 24),
        "intrinsics": np.array([[80.0, 0, 31.5], [0, 80, 23.5], [0, 0, 1]]),
        "image_size": np.array([48, 64]),
        "fps": np.float64(np.nan if fps is None else fps),
        "model": np.array("free"),
    }


def save_poses(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def standing_arrays(world: World, frames: int = 40) -> dict[str, Any]:
    """The arrays of a `--poses` file of an earlier version: three people of `REST_M` who stand on
    the floor of a world and face its camera."""
    tracks = {1: (-1.0, 4.0), 2: (0.5, 6.0), 5: (1.0, 9.0)}
    to_camera = world.axes("y").T
    pose = np.zeros((24, 3))
    pose[0] = Rotation.from_matrix(to_camera).as_rotvec()
    arrays = poses_arrays(dict.fromkeys(tracks, list(range(frames))), pose=pose)
    places = [tracks[track] for track in arrays["track"]]
    joints = np.array([REST_M + [x, 0, -forward] for x, forward in places])
    joints_m = joints @ to_camera.T + world.origin_m
    arrays["landmarks_m"] = np.repeat(joints_m[:, :1], 33, 1).astype(np.float32)
    arrays["joints_m"] = joints_m.astype(np.float32)
    arrays["transl_m"] = (joints_m[:, 0] - REST_M[0]).astype(np.float32)
    arrays["joint_visibility"][:] = 1
    return arrays
