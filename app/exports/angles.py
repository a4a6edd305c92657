"""Joint angles as a CSV table, by the joint coordinate systems of the International Society of
Biomechanics (Wu et al., J. Biomech. 2002 and 2005) where they fit a fitted body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.exports.recording import Recording, Track
from app.exports.rotations import euler_deg, joint_rotations
from app.outputs.atomic_file import written_whole
from pipeline.core.skeleton import SMPL_24

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

SEEN = 0.5
"""The least visibility of every joint that an angle is made of; below it the cell is empty."""
UNDEFINED_DEG = 5.0
"""The arm's least elevation, and least distance from straight up, at which its plane is defined."""
_AXES = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
"""The columns are ISB's axes of a person at rest (x forward, y up, z to the right) in SMPL's."""
_FORWARD, _UP, _RIGHT = _AXES.T
_MIRROR = np.diag([1.0, 1, -1])
_SIDES = ("left", "right")

Angles = Callable[["Rotation"], np.ndarray]
"""Gives angles (N, K) in degrees of the N rotations of a segment against another."""


@dataclass(frozen=True)
class _Joint:
    """Angles between two segments, named by SMPL's joints that turn them.

    Attributes:
        names: Of the angles, without the side.
        proximal: The segment that is taken as still.
        distal: The segment that moves.
        seen: The joints that show where both are.
        angles: Makes the angles of the distal segment's rotation against the proximal one.
    """

    names: tuple[str, ...]
    proximal: str
    distal: str
    seen: tuple[str, ...]
    angles: Angles


def _euler(order: str, *signs: int) -> Angles:
    def angles(turn: Rotation) -> np.ndarray:
        return euler_deg(turn, order)[:, : len(signs)] * signs

    return angles


def _shoulder(turn: Rotation) -> np.ndarray:
    """ISB's plane of elevation, elevation and axial rotation of the humerus against the thorax."""
    plane, elevation, rotation = euler_deg(turn, "YXY").T
    # Of the two triples that give the same rotation, ISB takes the one with a negative middle.
    plane, rotation = plane % 360 - 180, rotation % 360 - 180
    # An arm that hangs, or points straight up, has no plane of its own.
    undefined = np.minimum(elevation, 180 - elevation) < UNDEFINED_DEG
    plane, rotation = (np.where(undefined, np.nan, angle) for angle in (plane, rotation))
    return np.stack((plane, elevation, rotation), 1)


_MIDDLE = (
    _Joint(
        ("trunk_flexion", "trunk_bending", "trunk_rotation"),
        "pelvis", "spine3", ("pelvis", "spine3"), _euler("ZXY", -1, 1, 1),
    ),
    _Joint(
        ("neck_flexion", "neck_bending", "neck_rotation"),
        "spine3", "head", ("neck", "head"), _euler("ZXY", -1, 1, 1),
    ),
)  # fmt: skip
_SIDED = (
    _Joint(
        ("hip_flexion", "hip_adduction", "hip_rotation"),
        "pelvis", "hip", ("pelvis", "hip", "knee"), _euler("ZXY", 1, 1, 1),
    ),
    _Joint(("knee_flexion",), "hip", "knee", ("hip", "knee", "ankle"), _euler("ZXY", -1)),
    _Joint(
        ("ankle_dorsiflexion",), "knee", "ankle", ("knee", "ankle", "foot"), _euler("ZXY", 1)
    ),
    _Joint(
        ("shoulder_plane", "shoulder_elevation", "shoulder_rotation"),
        "spine3", "shoulder", ("shoulder", "elbow"), _shoulder,
    ),
    _Joint(
        ("elbow_flexion",), "shoulder", "elbow", ("shoulder", "elbow", "wrist"), _euler("ZXY", 1)
    ),
)  # fmt: skip
ANGLES = (
    *(name for joint in _MIDDLE for name in joint.names),
    *(f"{side}_{name}" for side in _SIDES for joint in _SIDED for name in joint.names),
)
"""The angles' names; a column's ends in ``_deg``."""
COLUMNS = ("frame", "pts_s", "track", *(f"{name}_deg" for name in ANGLES))


def write(recording: Recording, path: Path) -> None:
    """Write the angles of all people as a CSV file, a row a body and frame.

    Rows are sorted by frame, then track, as in `--poses`. Raises OSError.
    """
    rows = [
        (int(frame), int(track.id), float(pts_s), angles)
        for track in recording.tracks
        for frame, pts_s, angles in zip(track.frame, track.pts_s, joint_angles_deg(track))
    ]
    rows.sort(key=lambda row: row[:2])
    with written_whole(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        print(*COLUMNS, sep=",", file=file)
        for frame, number, pts_s, angles in rows:
            cells = ["" if np.isnan(angle) else f"{angle:.2f}" for angle in angles]
            print(frame, f"{pts_s:.6f}", number, *cells, sep=",", file=file)


def joint_angles_deg(track: Track) -> np.ndarray:
    """Return the angles (N, 24) of `ANGLES` in degrees.

    NaN where a joint that an angle needs is not seen, or the angle is not defined.
    """
    frames = _segment_frames(track)
    parts = [_of_joint(track, frames, joint, "") for joint in _MIDDLE]
    parts += [_of_joint(track, frames, joint, side) for side in _SIDES for joint in _SIDED]
    return np.concatenate(parts, 1)


def _of_joint(track: Track, frames: dict[str, np.ndarray], joint: _Joint, side: str) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    def sided(name: str) -> str:
        return name if name in frames or name in SMPL_24 else f"{side}_{name}"

    proximal, distal = frames[sided(joint.proximal)], frames[sided(joint.distal)]
    turn = proximal.swapaxes(1, 2) @ distal
    if side == "left":
        # In a mirror a left limb is a right one, so that both have the same signs.
        turn = _MIRROR @ turn @ _MIRROR
    angles = joint.angles(Rotation.from_matrix(turn))
    seen = track.joint_visibility[:, SMPL_24.indices(*map(sided, joint.seen))].min(1) >= SEEN
    return np.where(seen[:, None], angles, np.nan)


def _segment_frames(track: Track) -> dict[str, np.ndarray]:
    """Return ISB's axes (N, 3, 3), in columns, of each segment, by the joint that turns it.

    Those of a limb lie along its bone, as ISB has them; the others are those of the rest pose.
    """
    world = joint_rotations(track.pose)
    rest = dict.fromkeys(("pelvis", "spine3", "head"), _AXES)
    for side in _SIDES:
        # An arm at rest points to the side: raised there from hanging, its right is up or down.
        lateral = {"left": -_UP, "right": _UP}[side]
        for joint, end, right in (
            ("hip", "knee", _RIGHT), ("knee", "ankle", _RIGHT),
            ("shoulder", "elbow", lateral), ("elbow", "wrist", lateral),
        ):  # fmt: skip
            bone_m = track.rest_offsets_m[SMPL_24.index(f"{side}_{end}")]
            rest[f"{side}_{joint}"] = _axes_along(-bone_m, right)
        rest[f"{side}_ankle"] = _AXES
    return {name: world[:, SMPL_24.index(name)] @ axes for name, axes in rest.items()}


def _axes_along(up: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return axes (3, 3) in columns: y along ``up``, and z as near to ``right`` as it can be."""
    y = up / np.linalg.norm(up)
    x = np.cross(y, right)
    x /= np.linalg.norm(x)
    return np.stack((x, y, np.cross(x, y)), 1)
