"""People as glTF 2.0 in one file (`--glb`): a skinned mesh in each person's shape, its skeleton and
its motion. docs/formats/glb.md describes the file.

The free body has no pose blend shapes, so the linear blend skinning of glTF gives its mesh exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.exports.figures import BoneFigure, Figure, FreeFigure, free_body, normals
from app.exports.glb_file import INDICES, VERTICES, GlbFile
from app.exports.gltf_camera import camera, camera_place
from app.exports.recording import Recording, Track
from app.exports.rotations import joint_rotations
from pipeline.core.problem import printable
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import World
from render.palette import track_color

_LICENCE = "Body meshes: CC0 1.0, from MakeHuman's data"
_PARENTS = list(PARENTS[1:])
_CHILDREN = [[child for child in range(24) if PARENTS[child] == joint] for joint in range(24)]
_ROWS_AT_ONCE = 1024
_AWAY_S = 0.5
"""Who is not seen for longer is away, also where no frame shows it."""
_SAME_M = 1e-4
"""Bones whose ends differ by less are the same: the fit changes a known shape by hundredths of a
millimetre, and at most eight bones add up below the pelvis."""


def write(recording: Recording, path: Path) -> None:
    """Write the people of a recording as a GLB.

    Args:
        recording: At least one person. Of a body model other than the free one (`has_meshes`)
            bones are written in place of meshes.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    free = has_meshes(recording)
    file = GlbFile(generator="bodystream", **({"copyright": _LICENCE} if free else {}))
    place = camera_place(recording.world)
    file.add("nodes", name="camera", camera=file.add("cameras", **camera(recording)), **place)
    people = _People(file, recording, FreeFigure() if free else BoneFigure())
    for track in recording.tracks:
        people.add(track)
    file.add(
        "animations",
        name="motion",
        channels=people.channels,
        samplers=people.samplers,
        extras={"start_s": recording.start_s, "fps": recording.fps},
    )
    file.write(path)


def has_meshes(recording: Recording) -> bool:
    """Return whether the people of a recording have meshes in files.

    Those of the free body have. The mesh of another model is licensed to the user who has its file,
    and it must not be passed on; its poses may.
    """
    return recording.model == free_body().name


def mesh_warning(recording: Recording) -> str:
    """Return what a user must know of a file without meshes, a line; "" for one with meshes."""
    if has_meshes(recording):
        return ""
    return (
        f"it has bones in place of bodies: the mesh of {printable(recording.model)} has a licence "
        "of its own and is not passed on; the motion is whole, as in --bvh and --amass"
    )


class _People:
    """Adds the people of a recording to a file; ``channels`` and ``samplers`` are their motion."""

    def __init__(self, file: GlbFile, recording: Recording, figure: Figure) -> None:
        self._file, self._recording, self._figure = file, recording, figure
        # All people share these.
        self._faces = file.add_array(figure.faces.reshape(-1), INDICES)
        self._skinning = {
            "JOINTS_0": file.add_array(figure.joints, VERTICES),
            "WEIGHTS_0": file.add_array(figure.weights, VERTICES),
        }
        self.channels: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []

    def add(self, track: Track) -> None:
        """Add a person: the skeleton below a node of its own, the mesh, and the motion."""
        name = f"person_{track.id}"
        rest_m, vertices_m = self._figure.rest(track)
        kept, times_s = rising_times(track.pts_s - self._recording.start_s)
        pelvis_m = self._recording.world.points(track.pelvis_m[kept], "y")
        joints = self._add_skeleton(rest_m, pelvis_m[0])
        person = self._file.add(
            "nodes", name=name, children=joints[:1],
            extras={"track": track.id, "model": self._recording.model,
                    "betas": track.betas.tolist()},
        )  # fmt: skip
        self._add_mesh(track, name, joints, rest_m, vertices_m)
        times = self._file.add_array(times_s, limits=True)
        self._animate(joints[0], "translation", times, pelvis_m)
        for node, quaternions in zip(joints, rotations(track, kept, self._recording.world)):
            self._animate(node, "rotation", times, quaternions)
        # Before its last shape, which the mesh has, a person's joints were elsewhere.
        keys, bones_m = shape_changes(track, kept, rest_m[1:] - rest_m[_PARENTS])
        if len(keys):
            times = self._file.add_array(times_s[keys], limits=True)
            for node, bone_m in zip(joints[1:], bones_m.swapaxes(0, 1)):
                self._animate(node, "translation", times, bone_m)
        places, last = self._places(track.frame[kept], times_s)
        changes = presence(places, times_s, last, 1 / self._recording.fps)
        if changes is not None:
            changed_s, there = changes
            times = self._file.add_array(changed_s, limits=True)
            self._animate(person, "scale", times, np.repeat(there[:, None], 3, 1), "STEP")

    def _places(self, frame: np.ndarray, times_s: np.ndarray) -> tuple[np.ndarray, int]:
        """Return numbers of a person's frames (K,) that rise by more than 1 where the person was
        away, and the number of the recording's last frame.

        Frames that a live source has dropped have no rows at all, so only frames with people count,
        and times without this person that are longer than `_AWAY_S`.
        """
        known = self._recording.known_frames
        places = np.searchsorted(known, frame)
        away = np.diff(times_s) > _AWAY_S
        places[1:] += np.cumsum(away)
        return places, len(known) - 1 + int(away.sum())

    def _add_skeleton(self, rest_m: np.ndarray, pelvis_m: np.ndarray) -> list[int]:
        """Return the joints' nodes: in SMPL's rest pose, where the person is first seen."""
        places = rest_m.copy()
        places[1:] -= rest_m[_PARENTS]
        places[0] = pelvis_m
        nodes = [0] * 24
        # From the end, because a node names its children.
        for joint in reversed(range(24)):
            children = [nodes[child] for child in _CHILDREN[joint]]
            nodes[joint] = self._file.add(
                "nodes", name=JOINT_NAMES[joint], translation=places[joint].tolist(),
                **({"children": children} if children else {}),
            )  # fmt: skip
        return nodes

    def _add_mesh(
        self, track: Track, name: str, joints: list[int], rest_m: np.ndarray, vertices_m: np.ndarray
    ) -> None:
        """Add the mesh and its skin. glTF wants a skinned mesh at the root of the scene."""
        file = self._file
        inverse_bind = np.tile(np.eye(4, dtype=np.float32), (24, 1, 1))
        # The last row of the transposed matrices: glTF stores them column by column.
        inverse_bind[:, 3, :3] = -rest_m
        skin = file.add("skins", joints=joints, inverseBindMatrices=file.add_array(inverse_bind))
        attributes = {
            "POSITION": file.add_array(vertices_m.astype(np.float32), VERTICES, limits=True),
            "NORMAL": file.add_array(normals(vertices_m, self._figure.faces), VERTICES),
            **self._skinning,
        }
        material = file.add("materials", name=name, **_material(track.id))
        part = {"attributes": attributes, "indices": self._faces, "material": material}
        mesh = file.add("meshes", name=name, primitives=[part])
        file.add("nodes", name=f"{name}_mesh", mesh=mesh, skin=skin)

    def _animate(
        self, node: int, path: str, times: int, values: np.ndarray, interpolation: str = "LINEAR"
    ) -> None:
        output = self._file.add_array(values.astype(np.float32, copy=False))
        self.samplers.append({"input": times, "output": output, "interpolation": interpolation})
        target = {"node": node, "path": path}
        self.channels.append({"sampler": len(self.samplers) - 1, "target": target})


def _material(track: int) -> dict[str, Any]:
    """Return a matt material of the overlay's colour, which glTF wants in linear light."""
    color = np.array(track_color(track))
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    factors = {"metallicFactor": 0, "roughnessFactor": 0.7}
    return {"pbrMetallicRoughness": {"baseColorFactor": [*linear.round(4).tolist(), 1], **factors}}


def rotations(track: Track, rows: np.ndarray, world: World) -> np.ndarray:
    """Return the rotation of each joint against its parent, of the pelvis against the world with y
    up: quaternions x, y, z, w (24, N, 4) float32 without jumps of sign, in the given rows (N,)."""
    from scipy.spatial.transform import Rotation

    to_world = Rotation.from_matrix(world.axes("y"))
    quaternions = np.empty((24, len(rows), 4), np.float32)
    for block in _blocks(len(rows)):
        pose = _pose(track, rows[block])
        quaternions[0, block] = (to_world * Rotation.from_rotvec(pose[:, 0])).as_quat()
        others = Rotation.from_rotvec(pose[:, 1:].reshape(-1, 3)).as_quat()
        quaternions[1:, block] = others.reshape(-1, 23, 4).swapaxes(0, 1)
    # q and -q are one rotation; readers that interpolate the numbers need neighbours alike.
    cosines = np.einsum("jnq,jnq->jn", quaternions[:, 1:], quaternions[:, :-1])
    signs = np.cumprod(np.where(cosines < 0, -1, 1), axis=1, dtype=np.float32)
    quaternions[:, 1:] *= signs[..., None]
    return quaternions


def shape_changes(
    track: Track, rows: np.ndarray, rest_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where a curve through a person's bones needs keys, and the bones there.

    Args:
        track: The person.
        rows: The rows (N,) that are looked at.
        rest_m: The bones (23, 3): each joint but the pelvis from its parent at rest, metres.

    Returns:
        Those of the N that differ from ``rest_m``, with their neighbours (K,).
        The bones in their parents' axes (K, 23, 3) float32, metres.
    """
    bones_m = np.empty((len(rows), 23, 3), np.float32)
    other = np.empty(len(rows), bool)
    for block in _blocks(len(rows)):
        joints_m = track.joints_m[rows[block]].astype(np.float64)
        turns = joint_rotations(_pose(track, rows[block]))[:, _PARENTS]
        bones_m[block] = np.einsum("njba,njb->nja", turns, joints_m[:, 1:] - joints_m[:, _PARENTS])
        other[block] = (np.linalg.norm(bones_m[block] - rest_m, axis=2) >= _SAME_M).any(1)
    near = other.copy()
    near[1:] |= other[:-1]
    near[:-1] |= other[1:]
    keys = np.flatnonzero(near)
    return keys, np.where(other[keys, None, None], bones_m[keys], rest_m.astype(np.float32))


def _pose(track: Track, rows: np.ndarray) -> np.ndarray:
    pose = np.concatenate((track.global_orient[rows], track.body_pose[rows]), 1)
    return pose.astype(np.float64).reshape(-1, 24, 3)


def _blocks(count: int) -> Iterator[slice]:
    """Yield slices of rows: the matrices of all rows at once are larger than the recording."""
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)


def rising_times(times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have times of their own in float32, and these times (K,) float32.

    glTF wants times that rise, and after a day two of float32 are 8 ms apart.
    """
    times = np.maximum.accumulate(times_s.astype(np.float32))
    kept = np.flatnonzero(np.diff(times, append=np.inf) > 0)
    return kept, times[kept]


def presence(
    frame: np.ndarray, times_s: np.ndarray, last_frame: int, step_s: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return when a person comes and goes: times (K,) float32 that rise from 0, and whether the
    person is there from then on (K,) bool. None: always there.

    Args:
        frame: The frames (N,) with the person, rising.
        times_s: Their times (N,) float32, rising, not below 0.
        last_frame: The last frame with anybody.
        step_s: The time from a frame to the next.
    """
    first = np.flatnonzero(np.diff(frame, prepend=frame[0] - 2) > 1)
    end = np.append(first[1:], len(frame)) - 1
    # A person is gone one frame after the last one seen, and before they come again.
    until = np.append(times_s[first[1:]], np.inf)
    gone_s = np.minimum(times_s[end] + step_s, (times_s[end] + until) / 2)
    if frame[-1] >= last_frame:
        gone_s = gone_s[:-1]
    times = np.concatenate(([0.0], gone_s, times_s[first])).astype(np.float32)
    there = np.repeat([False, True], [1 + len(gone_s), len(first)])
    order = np.argsort(times, kind="stable")
    times, there = times[order], there[order]
    # Of equal times the last one holds, as for a person who is there from the beginning.
    kept = np.diff(times, append=np.inf) > 0
    times, there = times[kept], there[kept]
    return None if there.all() else (times, there)
