"""Where SMPL's joints and BlazePose's landmarks lie on MakeHuman's body.

MakeHuman's base mesh (hm08) has fixed vertex numbers and its default rig fixed bone names, so both
point sets are linear in the posed bone heads and the posed surface. Left and right are the person's
own. Nothing here needs the ``anny`` package: its outputs come in as arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.people import JOINT_NAMES, LANDMARK_NAMES

# Shares of bone heads; "{s}" stands for L or R, "{o}" for the other side.
_CENTRE_JOINTS: dict[str, dict[str, float]] = {
    "pelvis": {"spine05": 0.55, "spine04": 0.2, "spine03": 0.25},
    "spine1": {"spine03": 1.0},
    "spine2": {"spine02": 0.5, "spine01": 0.5},
    "spine3": {"spine01": 1.0},
    "neck": {"neck01": 0.3, "neck02": 0.7},
    "head": {"head": 1.0},
}
# MakeHuman's thigh bones begin near the trochanters; the femoral heads lie about a fifth of the
# way further in (about a tenth of the stature apart).
_SIDE_JOINTS: dict[str, dict[str, float]] = {
    "hip": {"upperleg01.{s}": 0.9, "upperleg01.{o}": 0.1},
    "knee": {"lowerleg01.{s}": 1.0},
    "ankle": {"foot.{s}": 1.0},
    "foot": {f"toe{toe}-1.{{s}}": 0.2 for toe in range(1, 6)},
    "collar": {"clavicle.{s}": 0.4, "shoulder01.{s}": 0.6},
    "shoulder": {"upperarm01.{s}": 1.0},
    "elbow": {"lowerarm01.{s}": 1.0},
    "wrist": {"wrist.{s}": 1.0},
    "hand": {f"finger{finger}-1.{{s}}": 0.25 for finger in range(2, 6)},
}
# Landmarks inside the body are joints; an annotator marks knuckles over the joints they cover.
_BONE_LANDMARKS: dict[str, dict[str, float]] = {
    **{name: _SIDE_JOINTS[name] for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
    "pinky": {"finger5-1.{s}": 1.0},
    "index": {"finger2-1.{s}": 1.0},
    "thumb": {"finger1-3.{s}": 1.0},
}
# Base mesh vertices, averaged: (left, right).
_NOSE_TIP = (5054,)
_SURFACE_LANDMARKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "eye_inner": ((6847, 13363), (63, 6767)),
    "eye": ((6785, 6784, 13370, 13372), (1, 0, 6774, 6776)),
    "eye_outer": ((13377, 13354), (6781, 6758)),
    "ear": ((12077, 12213), (5478, 5616)),
    "mouth": ((7182,), (422,)),
    "heel": ((12453, 12442), (5856, 5845)),
    "foot_index": ((12756, 13133), (6159, 6537)),
}


def _for_side(shares: dict[str, float], side: str) -> dict[str, float]:
    other = "R" if side == "L" else "L"
    return {bone.format(s=side, o=other): share for bone, share in shares.items()}


def _joint_shares(joint: str) -> dict[str, float]:
    if joint in _CENTRE_JOINTS:
        return _CENTRE_JOINTS[joint]
    side, _, part = joint.partition("_")
    return _for_side(_SIDE_JOINTS[part], "L" if side == "left" else "R")


def _matrix(rows: Sequence[dict[str, float]], bone_names: Sequence[str]) -> np.ndarray:
    column = {name: index for index, name in enumerate(bone_names)}
    matrix = np.zeros((len(rows), len(bone_names)))
    for row, shares in enumerate(rows):
        for bone, share in shares.items():
            if bone not in column:
                raise ValueError(f"the rig has no bone {bone!r}: take MakeHuman's default rig")
            matrix[row, column[bone]] = share
    return matrix


def makehuman_joints(bone_heads_m: np.ndarray, bone_names: Sequence[str]) -> np.ndarray:
    """SMPL's 24 joints on a posed MakeHuman rig.

    ``bone_heads_m`` (..., B, 3) posed bone heads, metres, any axes; ``bone_names`` the B bones of
    MakeHuman's default rig in the same order (anny: ``output["bone_poses"][..., :3, 3]`` and
    ``model.bone_labels``). Returns (..., 24, 3) in the same axes and dtype. ValueError if the rig
    lacks a bone.
    """
    shares = _matrix([_joint_shares(joint) for joint in JOINT_NAMES], bone_names)
    return (shares @ bone_heads_m).astype(bone_heads_m.dtype)


def landmark_parts(landmark: str) -> tuple[dict[str, float], tuple[int, ...]]:
    """How a landmark of `LANDMARK_NAMES` is read off: its shares of bone heads, or else the base
    mesh vertices it is the mean of. KeyError for another name."""
    if landmark == "nose":
        return {}, _NOSE_TIP
    words = landmark.split("_")
    side = "left" if "left" in words else "right"
    part = "_".join(word for word in words if word != side)
    if part in _BONE_LANDMARKS:
        return _for_side(_BONE_LANDMARKS[part], "L" if side == "left" else "R"), ()
    return {}, _SURFACE_LANDMARKS[part][side == "right"]


def makehuman_landmarks(
    vertices_m: np.ndarray,
    base_vertices: np.ndarray,
    bone_heads_m: np.ndarray,
    bone_names: Sequence[str],
) -> np.ndarray:
    """BlazePose's 33 landmarks on a posed MakeHuman body, as an annotator would mark them.

    ``vertices_m`` (..., V, 3) posed vertices, metres, any axes; ``base_vertices`` (V,) each one's
    number in the base mesh (anny: ``model.base_mesh_vertex_indices``); ``bone_heads_m`` and
    ``bone_names`` as for `makehuman_joints`. Shoulders, elbows, wrists, hips, knees, ankles and
    knuckles are joint centres; nose, eyes, ears, mouth, heels and toes are skin. Returns
    (..., 33, 3) in the same axes and dtype. ValueError if a bone or vertex is missing.
    """
    parts = [landmark_parts(landmark) for landmark in LANDMARK_NAMES]
    from_bones = _matrix([shares for shares, _ in parts], bone_names) @ bone_heads_m
    points = from_bones.astype(vertices_m.dtype)
    row_of = {int(number): row for row, number in enumerate(np.asarray(base_vertices))}
    for index, (_, numbers) in enumerate(parts):
        if not numbers:
            continue
        if any(number not in row_of for number in numbers):
            raise ValueError(f"the mesh lacks the base vertices of {LANDMARK_NAMES[index]}")
        points[..., index, :] = vertices_m[..., [row_of[n] for n in numbers], :].mean(axis=-2)
    return points
