"""BVH (Biovision Hierarchy): a skeleton and its motion, for Blender and other animation tools.

After the description in Meredith and Maddock, Motion Capture File Formats Explained, 2001.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.exports.recording import Recording, Track
from app.exports.rotations import euler_deg
from app.outputs.atomic_file import written_whole
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import World

ORDER = "ZXY"
"""The joints' rotations in the order of the channels: R = Z X Y, each about the turned axis."""
_PLACE = "Xposition Yposition Zposition"
_CHILDREN = [[j for j in range(24) if PARENTS[j] == parent] for parent in range(24)]
_ENDS_M = {
    "head": (0.0, 0.1, 0.0),
    "left_hand": (0.1, 0.0, 0.0),
    "right_hand": (-0.1, 0.0, 0.0),
    "left_foot": (0.0, 0.0, 0.1),
    "right_foot": (0.0, 0.0, 0.1),
}
"""The ends of the bones that no further joint ends: for the eye only, SMPL has no length there."""


def write(recording: Recording, track: Track, path: Path) -> None:
    """Write one person as a BVH file: metres, y up (`Recording.world`), a row a step of even time.

    The rest pose is SMPL's: arms out along x, the face along +z. Steps without a row are
    interpolated, because BVH cannot leave a frame out. Raises OSError.
    """
    rows = _channels(track, recording.world)
    head = [
        *_hierarchy(track.rest_offsets_m),
        "MOTION",
        f"Frames: {len(rows)}",
        f"Frame Time: {1 / recording.fps:.9f}",
    ]
    with written_whole(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        file.write("\n".join(head) + "\n")
        np.savetxt(file, rows, "%.6f")


def _hierarchy(offsets_m: np.ndarray) -> Iterator[str]:
    yield "HIERARCHY"
    yield from _joint(0, offsets_m, 0)


def _joint(joint: int, offsets_m: np.ndarray, depth: int) -> Iterator[str]:
    pad = "\t" * depth
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    yield f"{pad}{'JOINT' if joint else 'ROOT'} {JOINT_NAMES[joint]}"
    yield f"{pad}{{"
    yield f"{pad}\t{_offset(offsets_m[joint])}"
    # The root's offset is zero: readers disagree on whether its positions add to it.
    yield f"{pad}\tCHANNELS " + (
        f"3 {turns}" if joint else f"6 Xposition Yposition Zposition {turns}"
    )
    for child in _CHILDREN[joint]:
        yield from _joint(child, offsets_m, depth + 1)
    if not _CHILDREN[joint]:
        yield from (f"{pad}\tEnd Site", f"{pad}\t{{")
        yield f"{pad}\t\t{_offset(_ENDS_M[JOINT_NAMES[joint]])}"
        yield f"{pad}\t}}"
    yield f"{pad}}}"


def _offset(values: object) -> str:
    return "OFFSET " + " ".join(f"{value:.6f}" for value in np.asarray(values))


def _depth_first(joint: int = 0) -> Iterator[int]:
    """Yield the joints in the order in which the hierarchy names them."""
    yield joint
    for child in _CHILDREN[joint]:
        yield from _depth_first(child)


def _channels(track: Track, world: World) -> np.ndarray:
    """Return the rows of the motion (steps, 75): the root's position, then degrees."""
    pose = track.pose.astype(np.float64)
    pose[:, 0] = world.rotations(pose[:, 0], "y")
    steps = np.array(track.steps)
    pelvis_m = world.points(track.pelvis_m, "y")
    places_m = [np.interp(steps, track.step, pelvis_m[:, axis]) for axis in range(3)]
    angles = [_angles(track.step, pose[:, joint], steps) for joint in _depth_first()]
    return np.hstack([np.stack(places_m, 1), _continuous(np.hstack(angles))])


def _angles(known: np.ndarray, pose: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return a joint's angles (steps, 3) in degrees of its rotations (N, 3) at the known steps."""
    from scipy.spatial.transform import Rotation, Slerp

    rotations = Rotation.from_rotvec(pose)
    if len(known) > 1:
        rotations = Slerp(known, rotations)(steps)
    return euler_deg(rotations, ORDER)


def _continuous(angles: np.ndarray) -> np.ndarray:
    """Return the same rotations by angles without jumps, so that readers may interpolate them.

    A rotation has two triples of angles, and each angle any number of full turns. The triple that
    is nearer to the one before is taken.

    Args:
        angles: Three for each joint (steps, 72), in degrees.
    """
    triples = angles.reshape(len(angles), -1, 3)
    joints = np.arange(triples.shape[1])
    out = triples.copy()
    for row in range(1, len(out)):
        both = np.stack((triples[row], triples[row] * (1, -1, 1) + 180))
        both += 360 * np.rint((out[row - 1] - both) / 360)
        nearer = np.abs(both - out[row - 1]).sum(2).argmin(0)
        out[row] = both[nearer, joints]
    return out.reshape(angles.shape)
