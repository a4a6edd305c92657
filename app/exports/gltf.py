"""People as glTF 2.0 in one file (`--glb`): a skinned mesh in each person's shape, its skeleton and
its motion. docs/formats/glb.md describes the file.

The free body has no pose blend shapes, so the linear blend skinning of glTF gives its mesh exactly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from app.exports.figures import BoneFigure, Figure, FreeFigure, free_body, normals
from app.exports.glb_file import INDICES, VERTICES, GlbFile
from app.exports.recording import Recording, Track, joint_rotations
from pipeline.core.skeleton import JOINT_NAMES, PARENTS
from pipeline.core.world import camera_to_world
from render.palette import track_color

_LICENCE = "Body meshes: CC0 1.0, from MakeHuman's data"
_PARENTS = list(PARENTS[1:])
_CHILDREN = [[child for child in range(24) if PARENTS[child] == joint] for joint in range(24)]
_ROWS_AT_ONCE = 4096
_SAME_M = 2e-5
"""Bones whose ends differ by less are the same: recordings hold joints in float32."""


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
    file.add("nodes", name="camera", camera=file.add("cameras", **_camera(recording)))
    start_s = min(float(track.pts_s[0]) for track in recording.tracks)
    people = _People(file, recording, FreeFigure() if free else BoneFigure(), start_s)
    for track in recording.tracks:
        people.add(track)
    file.add(
        "animations",
        name="motion",
        channels=people.channels,
        samplers=people.samplers,
        extras={"start_s": start_s, "fps": recording.fps},
    )
    file.write(path)


def has_meshes(recording: Recording) -> bool:
    """Return whether the people of a recording have meshes in files.

    Those of the free body have. The mesh of another model is licensed to the user who has its file,
    and it must not be passed on; its poses may.
    """
    return recording.model == free_body().name


def _camera(recording: Recording) -> dict[str, Any]:
    """Return the camera, which is at the origin and looks along -z, as glTF's cameras do."""
    height, width = recording.size
    focal_px = recording.intrinsics[1, 1]
    perspective = {
        "yfov": 2 * math.atan(height / (2 * focal_px)),
        "aspectRatio": width / height,
        "znear": 0.01,
    }
    return {"type": "perspective", "perspective": perspective}


class _People:
    """Adds the people of a recording to a file; ``channels`` and ``samplers`` are their motion."""

    def __init__(self, file: GlbFile, recording: Recording, figure: Figure, start_s: float) -> None:
        self._file, self._recording, self._figure = file, recording, figure
        self._start_s = start_s
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
        quaternions, pelvis_m, bones_m = motion(track)
        joints = self._add_skeleton(rest_m, pelvis_m[0])
        person = self._file.add(
            "nodes", name=name, children=joints[:1],
            extras={"track": track.id, "model": self._recording.model,
                    "betas": track.betas.tolist()},
        )  # fmt: skip
        self._add_mesh(track, name, joints, rest_m, vertices_m)
        kept, times_s = rising_times(track.pts_s - self._start_s)
        times = self._file.add_array(times_s, limits=True)
        for joint, node in enumerate(joints):
            self._animate(node, "rotation", times, quaternions[joint, kept])
        self._animate(joints[0], "translation", times, pelvis_m[kept])
        self._add_shape_changes(joints, rest_m, bones_m[kept], times_s)
        last = self._recording.frames[-1]
        keys = presence(track.frame[kept], times_s, last, 1 / self._recording.fps)
        if keys is not None:
            scale = np.repeat(keys[1].astype(np.float32)[:, None], 3, 1)
            self._animate(
                person, "scale", self._file.add_array(keys[0], limits=True), scale, "STEP"
            )

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

    def _add_shape_changes(
        self, joints: list[int], rest_m: np.ndarray, bones_m: np.ndarray, times_s: np.ndarray
    ) -> None:
        """Move the joints where the fit had another shape than the mesh's, the person's last."""
        bones_m, keys = shape_changes(bones_m, rest_m[1:] - rest_m[_PARENTS])
        if len(keys):
            times = self._file.add_array(times_s[keys], limits=True)
            for node, bone_m in zip(joints[1:], bones_m[keys].swapaxes(0, 1)):
                self._animate(node, "translation", times, bone_m)

    def _animate(
        self, node: int, path: str, times: int, values: np.ndarray, interpolation: str = "LINEAR"
    ) -> None:
        output = self._file.add_array(values.astype(np.float32))
        self.samplers.append({"input": times, "output": output, "interpolation": interpolation})
        target = {"node": node, "path": path}
        self.channels.append({"sampler": len(self.samplers) - 1, "target": target})


def _material(track: int) -> dict[str, Any]:
    """Return a matt material of the overlay's colour, which glTF wants in linear light."""
    color = np.array(track_color(track))
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    factors = {"metallicFactor": 0, "roughnessFactor": 0.7}
    return {"pbrMetallicRoughness": {"baseColorFactor": [*linear.round(4).tolist(), 1], **factors}}


def motion(track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a person's motion in a world with y up, all float32.

    Returns:
        Rotation of each joint against its parent, of the pelvis against the world: quaternions
        x, y, z, w (24, N, 4), without jumps of sign.
        The pelvis (N, 3), metres.
        Each other joint from its parent in the parent's axes (N, 23, 3), metres.
    """
    from scipy.spatial.transform import Rotation

    world = camera_to_world("y")
    count = len(track.frame)
    quaternions = np.empty((24, count, 4), np.float32)
    bones_m = np.empty((count, 23, 3), np.float32)
    # In blocks: rotation matrices of all rows at once would be larger than the recording.
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        pose = np.concatenate((track.global_orient[rows], track.body_pose[rows]), 1)
        pose = pose.astype(np.float64).reshape(-1, 24, 3)
        joints_m = track.joints_m[rows].astype(np.float64)
        bones = joints_m[:, 1:] - joints_m[:, _PARENTS]
        turns = joint_rotations(pose)[:, _PARENTS]
        bones_m[rows] = np.einsum("njba,njb->nja", turns, bones)
        pelvis = Rotation.from_matrix(world) * Rotation.from_rotvec(pose[:, 0])
        quaternions[0, rows] = pelvis.as_quat()
        others = Rotation.from_rotvec(pose[:, 1:].reshape(-1, 3)).as_quat()
        quaternions[1:, rows] = others.reshape(-1, 23, 4).swapaxes(0, 1)
    # q and -q are one rotation; readers that interpolate the numbers need neighbours alike.
    flips = np.where((quaternions[:, 1:] * quaternions[:, :-1]).sum(-1) < 0, np.float32(-1), 1)
    quaternions[:, 1:] *= np.cumprod(flips, axis=1, dtype=np.float32)[..., None]
    return quaternions, (track.pelvis_m @ world.T).astype(np.float32), bones_m


def rising_times(times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have times of their own in float32, and these times (K,) float32.

    glTF wants times that rise, and after a day two of float32 are 8 ms apart.
    """
    times = np.maximum.accumulate(times_s.astype(np.float32))
    kept = np.flatnonzero(np.diff(times, append=np.inf) > 0)
    return kept, times[kept]


def shape_changes(bones_m: np.ndarray, rest_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bones (N, 23, 3) that are exactly ``rest_m`` (23, 3) where they nearly are, and the
    rows that a curve through them needs: none if they always are."""
    settled = (np.abs(bones_m - rest_m) < _SAME_M).all((1, 2))
    bones_m = np.where(settled[:, None, None], rest_m, bones_m)
    if settled.all():
        return bones_m, np.zeros(0, np.int64)
    changed = (np.diff(bones_m, axis=0) != 0).any((1, 2))
    # Where a bone differs from that of the row before or after; the first row in any case.
    keys = np.concatenate(([True], changed)) | np.concatenate((changed, [False]))
    return bones_m, np.flatnonzero(keys)


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
    times = np.concatenate(([0.0], times_s[first], gone_s)).astype(np.float32)
    there = np.repeat([False, True, False], [1, len(first), len(gone_s)])
    order = np.argsort(times, kind="stable")
    times, there = times[order], there[order]
    # Of equal times the last one holds, as for a person who is there from the beginning.
    kept = np.diff(times, append=np.inf) > 0
    times, there = times[kept], there[kept]
    return None if there.all() else (times, there)
