"""The bodies of a `--poses` file, track by track: what every export and view reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.outputs.base import OutputError
from app.outputs.poses import rate_of
from pipeline.core.npz import read_npz
from pipeline.core.problem import printable
from pipeline.core.skeleton import PARENTS
from pipeline.core.user_file import reading

_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "frame": ("iu", ()),
    "pts_s": ("f", ()),
    "track": ("iu", ()),
    "global_orient": ("f", (3,)),
    "body_pose": ("f", (69,)),
    "betas": ("f", (10,)),
    "joints_m": ("f", (24, 3)),
    "joint_visibility": ("f", (24,)),
    "landmarks_m": ("f", (33, 3)),
}
"""The columns of a row that are read: the kinds of their numbers, and the shape."""
_UNUSED = ("score", "transl_m", "joints_px", "landmarks_px", "vertices_m", "faces")


class ExportError(OutputError):
    """A recording cannot be read or exported; the message is one line that names it."""


@dataclass(frozen=True, eq=False)
class Track:
    """One person over N frames, in the camera's axes (x right, y down, z forward), metres.

    Attributes:
        id: The track's number.
        frame: Indices (N,) int64 of the frames in the source, rising. A gap in them is a gap in
            time, in which the person was not seen.
        pts_s: The source's own times (N,) float64, seconds.
        global_orient: Rotation of the pelvis from SMPL's axes (N, 3), axis-angle, radians.
        body_pose: Rotations of joints 1 to 23 against their parents (N, 69), axis-angle, radians.
        betas: The track's one shape (10,): its last, which has used the most frames.
        frame_betas: The shape of each frame (N, 10): it changes while the fit still learns it.
        pelvis_m: SMPL's pelvis joint (N, 3).
        joints_m: SMPL's joints (N, 24, 3).
        joint_visibility: The probability that each joint is seen and right (N, 24), 0 to 1.
        landmarks_m: BlazePose's landmarks of the fitted body (N, 33, 3).
        rest_offsets_m: The bones of that shape (24, 3) in SMPL's axes: each joint from its parent
            in the rest pose; zero for the pelvis.
    """

    id: int
    frame: np.ndarray
    pts_s: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    frame_betas: np.ndarray
    pelvis_m: np.ndarray
    joints_m: np.ndarray
    joint_visibility: np.ndarray
    landmarks_m: np.ndarray
    rest_offsets_m: np.ndarray


@dataclass(frozen=True, eq=False)
class Recording:
    """The tracks of a run, and what holds for all of them.

    Attributes:
        fps: Frames a second: the source's nominal rate, else from the median step of its times, or
            30 with one frame.
        model: The name of the body model that the betas belong to.
        size: (height, width) of the first frame, pixels.
        tracks: The people, by rising number.
        intrinsics: The camera K (3, 3) of the first frame, pixels.
    """

    fps: float
    model: str
    size: tuple[int, int]
    tracks: tuple[Track, ...]
    intrinsics: np.ndarray

    @cached_property
    def frames(self) -> range:
        """The source's frames from the first to the last one with a person."""
        first = min(int(track.frame[0]) for track in self.tracks)
        return range(first, max(int(track.frame[-1]) for track in self.tracks) + 1)


def read_recording(path: Path) -> Recording:
    """Return the recording that `--poses` wrote.

    Args:
        path: The npz.

    Raises:
        ExportError: It is truncated, was not written by `--poses`, or has no people.
        OSError: It cannot be opened.
    """
    with reading(path, " is no recording of --poses", ExportError):
        arrays = read_npz(path, skip=_UNUSED)
        _check(arrays)
        recording = make_recording(arrays)
    if not recording.tracks:
        raise ExportError(f"{printable(str(path))}: it has no people")
    return recording


def make_recording(arrays: Mapping[str, Any]) -> Recording:
    """Return the recording of arrays named and shaped as in a `--poses` file."""
    tracks = np.asarray(arrays["track"])
    found = []
    for number in np.unique(tracks):
        rows = np.flatnonzero(tracks == number)
        rows = rows[np.argsort(arrays["frame"][rows], kind="stable")]
        found.append(_track(number, {name: np.asarray(arrays[name])[rows] for name in _COLUMNS}))
    height, width = (int(side) for side in arrays["image_size"])
    fps = float(arrays["fps"])
    return Recording(
        fps if fps > 0 else rate_of(np.unique(arrays["pts_s"])),
        str(arrays["model"]),
        (height, width),
        tuple(found),
        np.asarray(arrays["intrinsics"], np.float64),
    )


def _track(number: int, values: Mapping[str, np.ndarray]) -> Track:
    betas, joints_m = values["betas"], values["joints_m"]
    # Of the rows that have the track's one shape: it changes while the fit still learns it.
    last = (betas == betas[-1]).all(1)
    pose = np.concatenate((values["global_orient"], values["body_pose"]), 1)
    return Track(
        id=int(number),
        frame=values["frame"].astype(np.int64),
        pts_s=values["pts_s"],
        global_orient=values["global_orient"],
        body_pose=values["body_pose"],
        betas=betas[-1],
        frame_betas=betas,
        pelvis_m=joints_m[:, 0],
        joints_m=joints_m,
        joint_visibility=values["joint_visibility"],
        landmarks_m=values["landmarks_m"],
        rest_offsets_m=_rest_offsets_m(pose[last].reshape(-1, 24, 3), joints_m[last]),
    )


def joint_rotations(pose: np.ndarray) -> np.ndarray:
    """Return the rotations (N, 24, 3, 3) of SMPL's joints from its rest pose to the world.

    Args:
        pose: Rotation of each joint against its parent, and of the pelvis against the world
            (N, 24, 3), axis-angle, radians.
    """
    from scipy.spatial.transform import Rotation

    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    world = local.copy()
    for joint in range(1, 24):
        world[:, joint] = world[:, PARENTS[joint]] @ local[:, joint]
    return world


def _rest_offsets_m(pose: np.ndarray, joints_m: np.ndarray) -> np.ndarray:
    """Return `Track.rest_offsets_m`, the mean over rows of one shape.

    Each bone is turned back by its parent's rotation, so no body model is needed: a recording of a
    licensed body can be exported where its file is not.
    """
    parents = list(PARENTS[1:])
    bones = joints_m[:, 1:].astype(np.float64) - joints_m[:, parents]
    turn = joint_rotations(pose)[:, parents]
    offsets = np.einsum("njba,njb->nja", turn, bones).mean(0)
    return np.concatenate((np.zeros((1, 3)), offsets))


def _check(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError for the first thing that `--poses` would not have written."""
    whole = {"intrinsics": (3, 3), "image_size": (2,), "fps": (), "model": ()}
    for name in (*_COLUMNS, *whole):
        if not isinstance(arrays.get(name), np.ndarray):
            raise ValueError(f"it has no {name}")
    for name, shape in whole.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
    rows = len(arrays["track"]) if arrays["track"].ndim else 0
    for name, (kinds, shape) in _COLUMNS.items():
        array = arrays[name]
        if array.shape != (rows, *shape) or array.dtype.kind not in kinds:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {(rows, *shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
    order = np.lexsort((arrays["frame"], arrays["track"]))
    track, frame = arrays["track"][order], arrays["frame"][order]
    if ((np.diff(track) == 0) & (np.diff(frame) == 0)).any():
        raise ValueError("a track has two rows of one frame")
