"""The bodies of a `--poses` file, track by track: what every export and view reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from app.exports.file_world import check_world, steady, world_of
from app.exports.rotations import rest_offsets_m
from app.outputs.base import OutputError
from app.outputs.poses import ROWS
from app.outputs.world_columns import TURN, WORLD_ROWS
from pipeline.core.npz import read_npz
from pipeline.core.problem import printable
from pipeline.core.user_file import reading
from pipeline.core.world import World

COLUMNS = (
    "frame", "pts_s", "track", "global_orient", "body_pose", "betas", "joints_m",
    "joint_visibility", "landmarks_m",
)  # fmt: skip
"""The columns of `--poses` that are read."""
_UNUSED = (
    "score", "transl_m", "joints_px", "landmarks_px", "vertices_m", "faces", *WORLD_ROWS,
)  # fmt: skip
_USUAL_FPS = 30.0
"""Frames a second where neither the file nor its times say it."""
_MOST_INVENTED = 0.02
"""The most steps of the nominal rate without a row between frames that follow each other, as a
share of the rows."""
_SAME_STEP = 0.25
"""The part of a step by which the nominal rate may place rows worse than the best rate."""
_LONGEST_S = 7 * 24 * 3600.0
"""A week: formats of one rate hold a step for all of a recording's time."""


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
        step: Each row's place in even time (N,) int64, rising: `Recording.time_s` is its time.
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
    step: np.ndarray

    @property
    def pose(self) -> np.ndarray:
        """The rotations of all 24 joints (N, 24, 3), the pelvis first, axis-angle, radians."""
        return np.concatenate((self.global_orient, self.body_pose), 1).reshape(-1, 24, 3)

    @property
    def steps(self) -> range:
        """The steps of even time from its first row to its last."""
        return range(int(self.step[0]), int(self.step[-1]) + 1)


@dataclass(frozen=True, eq=False)
class Recording:
    """The tracks of a run, and what holds for all of them.

    Attributes:
        fps: Steps of even time a second: the source's nominal rate, unless it has none or the rows'
            times tell of another one, as those of a webcam in the dark do; then their mean or their
            usual rate, or 30 with one frame.
        model: The name of the body model that the betas belong to.
        size: (height, width) of the first frame, pixels.
        tracks: The people, by rising number.
        intrinsics: The camera K (3, 3) of the first frame, pixels.
        start_s: The source's time of step 0, seconds.
        world: The axes in which up is up and, where the floor is known, the floor's height is 0.
        ground: How up and the floor are known.
    """

    fps: float
    model: str
    size: tuple[int, int]
    tracks: tuple[Track, ...]
    intrinsics: np.ndarray
    start_s: float
    world: World = field(default_factory=World)
    ground: str = ""

    @cached_property
    def frames(self) -> range:
        """The source's frames from the first to the last one with a person."""
        first = min(int(track.frame[0]) for track in self.tracks)
        return range(first, max(int(track.frame[-1]) for track in self.tracks) + 1)

    @cached_property
    def known_frames(self) -> np.ndarray:
        """The frames (F,) int64 with a person, rising."""
        return np.unique(np.concatenate([track.frame for track in self.tracks]))

    def time_s(self, step: np.ndarray) -> np.ndarray:
        """Return the times (N,) of steps (N,) of even time, in the source's seconds."""
        return self.start_s + np.asarray(step) / self.fps

    def __repr__(self) -> str:
        people = "1 person" if len(self.tracks) == 1 else f"{len(self.tracks)} people"
        return f"Recording of {people} in {len(self.frames)} frames at {self.fps:g} fps"

    def _repr_html_(self) -> str:
        """Return a table of the tracks for a notebook, whose display looks for this name."""
        rows = "".join(
            f"<tr><td>{track.id}</td><td>{track.pts_s[0]:.2f} s</td><td>{track.pts_s[-1]:.2f} s"
            f"</td><td>{len(track.frame)}</td></tr>"
            for track in self.tracks
        )
        head = "<th>track</th><th>from</th><th>to</th><th>frames</th>"
        return f"{escape(repr(self))}<table><tr>{head}</tr>{rows}</table>"


def read_recording(path: str | Path) -> Recording:
    """Return the recording that `--poses` wrote.

    Args:
        path: The npz.

    Raises:
        ExportError: It is truncated, was not written by `--poses`, or has no people.
        OSError: It cannot be opened.
    """
    # Programs give paths as text too.
    path = Path(path)
    with reading(path, " is no recording of --poses", ExportError):
        arrays = read_npz(path, skip=_UNUSED)
        check(arrays)
        recording = make_recording(arrays)
    if not recording.tracks:
        raise ExportError(f"{printable(str(path))}: it has no people")
    return recording


def make_recording(arrays: Mapping[str, Any]) -> Recording:
    """Return the recording of arrays named and shaped as in a `--poses` file."""
    frames, first = np.unique(arrays["frame"], return_index=True)
    times_s = np.asarray(arrays["pts_s"], np.float64)[first]
    fps = _rate(float(arrays["fps"]), frames, times_s)
    steps = even_steps(times_s, fps)
    found = []
    for number in np.unique(arrays["track"]):
        rows = np.flatnonzero(arrays["track"] == number)
        rows = rows[np.argsort(arrays["frame"][rows], kind="stable")]
        values = {name: np.asarray(arrays[name])[rows] for name in COLUMNS}
        if TURN in arrays:
            values |= steady(values, np.asarray(arrays[TURN])[rows])
        found.append(_track(number, values, steps[np.searchsorted(frames, values["frame"])]))
    height, width = (int(side) for side in arrays["image_size"])
    world, ground = world_of(arrays)
    return Recording(
        fps,
        str(arrays["model"]),
        (height, width),
        tuple(found),
        np.asarray(arrays["intrinsics"], np.float64),
        float(times_s[0]) if len(times_s) else 0.0,
        world,
        ground,
    )


def even_steps(times_s: np.ndarray, fps: float) -> np.ndarray:
    """Return the steps (N,) int64 of even time, from 0, that rising times (N,) are nearest to.

    No two times share a step: the second one takes the next.

    Args:
        times_s: Seconds.
        fps: Steps a second.
    """
    if not len(times_s):
        return np.zeros(0, np.int64)
    nearest = np.rint((times_s - times_s[0]) * fps).astype(np.int64)
    count = np.arange(len(nearest))
    return np.maximum.accumulate(nearest - count) + count


def _rate(nominal: float, frames: np.ndarray, times_s: np.ndarray) -> float:
    """Return the steps a second at which the rows keep their times best."""
    span_s = float(times_s[-1] - times_s[0]) if len(times_s) else 0.0
    if span_s <= 0:
        return nominal if nominal > 0 else _USUAL_FPS
    # By the frames between, because a frame without people has no row.
    usual = 1 / float(np.median(np.diff(times_s) / np.diff(frames)))
    rates = [int(frames[-1] - frames[0]) / span_s, *([usual] if np.isfinite(usual) else [])]
    best = min(rates, key=lambda rate: _off_s(rate, times_s))
    if nominal > 0:
        # A container rounds its times, so the nominal rate is the better one where both agree.
        agrees = _off_s(nominal, times_s) <= _off_s(best, times_s) + _SAME_STEP / nominal
        # At twice the rate of its frames every row would have its time, and each second step none.
        invented = np.diff(even_steps(times_s, nominal))[np.diff(frames) == 1] - 1
        if agrees and invented.sum() <= _MOST_INVENTED * len(frames):
            return nominal
    return best


def _off_s(rate: float, times_s: np.ndarray) -> float:
    """Return how far a row's step is off its time at most, seconds."""
    return float(np.abs(even_steps(times_s, rate) / rate - (times_s - times_s[0])).max())


def _track(number: int, values: Mapping[str, np.ndarray], step: np.ndarray) -> Track:
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
        rest_offsets_m=rest_offsets_m(pose[last].reshape(-1, 24, 3), joints_m[last]),
        step=step,
    )


def check(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError for the first thing that `--poses` would not have written."""
    whole = {"intrinsics": (3, 3), "image_size": (2,), "fps": (), "model": ()}
    for name in (*COLUMNS, *whole):
        if not isinstance(arrays.get(name), np.ndarray):
            raise ValueError(f"it has no {name}")
    for name, shape in whole.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
    if arrays["model"].dtype.kind != "U":
        raise ValueError("model is no text")
    intrinsics, size, fps = arrays["intrinsics"], arrays["image_size"], float(arrays["fps"])
    if not (np.isfinite(intrinsics).all() and (np.diagonal(intrinsics) > 0).all()):
        raise ValueError("intrinsics has no positive focal lengths")
    if size.dtype.kind not in "iu" or (size < 1).any():
        raise ValueError("image_size is no height and width")
    if not (np.isnan(fps) or 0 < fps < 1e6):
        raise ValueError(f"fps is {fps}")
    if "world_rotation" in arrays:
        check_world(arrays)
    rows = arrays["track"].size
    for name in COLUMNS:
        array, (dtype, shape) = arrays[name], ROWS[name]
        if array.shape != (rows, *shape) or array.dtype.kind != np.dtype(dtype).kind:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {(rows, *shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
    turn = arrays.get(TURN, np.zeros((rows, 3)))
    if turn.shape != (rows, 3) or turn.dtype.kind != "f" or not np.isfinite(turn).all():
        raise ValueError(f"{TURN} is no column of rotations")
    order = np.lexsort((arrays["frame"], arrays["track"]))
    track, frame = arrays["track"][order], arrays["frame"][order]
    if ((np.diff(track) == 0) & (np.diff(frame) == 0)).any():
        raise ValueError("a track has two rows of one frame")
    by_frame = np.argsort(arrays["frame"], kind="stable")
    times_s = arrays["pts_s"][by_frame]
    if (np.diff(times_s) < 0).any():
        raise ValueError("pts_s falls from a frame to a later one")
    if rows and times_s[-1] - times_s[0] > _LONGEST_S:
        raise ValueError("pts_s spans more than a week")
