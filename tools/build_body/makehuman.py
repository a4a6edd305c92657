"""SMPL's joints and BlazePose's landmarks on MakeHuman's body.

MakeHuman's base mesh (hm08) has fixed vertex numbers, and its default rig has fixed bone names, so
both point sets are linear in the posed bone heads and the posed surface. Left and right are the
person's own. Nothing here needs the ``anny`` package: its outputs are passed as arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES

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
# Landmarks lie where BlazePose puts them, as measured on renders of this body (154 views of 22
# poses): hips, ankles and shoulders somewhat above the joints, "thumb" at the thumb's first
# knuckle, index and pinky drawn to the middle of the hand, toes behind their tips, heels and ears
# further ahead. Shares of bone heads, as above; each with its share of skin (below) sums to one.
_BONE_LANDMARKS: dict[str, dict[str, float]] = {
    "shoulder": {"upperarm01.{s}": 1.0, "neck01": 0.07, "spine01": -0.07},
    "elbow": {"lowerarm01.{s}": 1.0},
    "wrist": {"wrist.{s}": 0.86, "finger3-1.{s}": 0.07, "finger4-1.{s}": 0.07},
    "pinky": {"finger4-1.{s}": 0.6, "finger3-1.{s}": 0.2, "wrist.{s}": 0.2},
    "index": {"finger2-1.{s}": 0.4, "finger3-1.{s}": 0.38, "wrist.{s}": 0.22},
    "thumb": {"finger1-2.{s}": 0.5, "finger1-1.{s}": 0.2, "finger2-1.{s}": 0.3},
    "hip": _SIDE_JOINTS["hip"] | {"spine04": 0.2, "spine05": 0.25, "root": -0.45},
    "knee": {"lowerleg01.{s}": 1.0},
    "ankle": {"foot.{s}": 0.94, "lowerleg01.{s}": 0.06},
    "heel": {"foot.{s}": 0.3},
    "foot_index": {"toe1-2.{s}": 0.4, "toe2-2.{s}": 0.4},
}
# Base mesh vertices (left, right) and their shares.
_SKIN_LANDMARKS: dict[str, dict[tuple[int, int], float]] = {
    "nose": {(5054, 5054): 0.5, (291, 291): 0.5},
    "eye_inner": {(6847, 63): 0.5, (13363, 6767): 0.5},
    "eye": {(6785, 1): 0.25, (6784, 0): 0.25, (13370, 6774): 0.25, (13372, 6776): 0.25},
    "eye_outer": {(13377, 6781): 0.5, (13354, 6758): 0.5},
    "ear": {(12077, 5478): 0.4, (12213, 5616): 0.4, (13377, 6781): 0.2},
    "mouth": {(7182, 422): 1.0},
    "heel": {(12453, 5856): 0.35, (12442, 5845): 0.35},
    "foot_index": {(12756, 6159): 0.1, (13133, 6537): 0.1},
}


def _for_side(shares: dict[str, float], side: str) -> dict[str, float]:
    other = "R" if side == "L" else "L"
    return {bone.format(s=side, o=other): share for bone, share in shares.items()}


def _joint_shares(joint: str) -> dict[str, float]:
    if joint in _CENTRE_JOINTS:
        return _CENTRE_JOINTS[joint]
    side, _, part = joint.partition("_")
    return _for_side(_SIDE_JOINTS[part], "L" if side == "left" else "R")


def bone_matrix(rows: Sequence[dict[str, float]], bone_names: Sequence[str]) -> np.ndarray:
    """Return rows of shares as a matrix (K, B) over the bones. Raises ValueError for a bone that is
    missing."""
    column = {name: index for index, name in enumerate(bone_names)}
    matrix = np.zeros((len(rows), len(bone_names)))
    for row, shares in enumerate(rows):
        for bone, share in shares.items():
            if bone not in column:
                raise ValueError(f"the rig has no bone {bone!r}: take MakeHuman's default rig")
            matrix[row, column[bone]] = share
    return matrix


def makehuman_joints(bone_heads_m: np.ndarray, bone_names: Sequence[str]) -> np.ndarray:
    """Return SMPL's 24 joints of a posed MakeHuman rig.

    Args:
        bone_heads_m: Posed bone heads (..., B, 3), metres, in any axes
            (anny: ``output["bone_poses"][..., :3, 3]``).
        bone_names: The B bones of MakeHuman's default rig, in the same order
            (anny: ``model.bone_labels``).

    Returns:
        Joints (..., 24, 3) in the same axes and dtype.

    Raises:
        ValueError: The rig lacks a bone.
    """
    shares = bone_matrix([_joint_shares(joint) for joint in JOINT_NAMES], bone_names)
    return (shares @ bone_heads_m).astype(bone_heads_m.dtype)


def landmark_parts(landmark: str) -> tuple[dict[str, float], dict[int, float]]:
    """Return a landmark's shares of MakeHuman's bone heads and of base mesh vertices, which sum to
    one. Raises KeyError for a name that is not in `LANDMARK_NAMES`."""
    side = next((word for word in landmark.split("_") if word in ("left", "right")), "")
    part = landmark.replace(side, "").strip("_")
    if part not in _BONE_LANDMARKS and part not in _SKIN_LANDMARKS:
        raise KeyError(landmark)
    bones = _for_side(_BONE_LANDMARKS.get(part, {}), "R" if side == "right" else "L")
    skin = _SKIN_LANDMARKS.get(part, {}).items()
    return bones, {pair[side == "right"]: share for pair, share in skin}


def makehuman_landmarks(
    vertices_m: np.ndarray,
    base_vertices: np.ndarray,
    bone_heads_m: np.ndarray,
    bone_names: Sequence[str],
) -> np.ndarray:
    """Return BlazePose's 33 landmarks of a posed MakeHuman body, as an annotator would mark them.

    Args:
        vertices_m: Posed vertices (..., V, 3), metres, in any axes.
        base_vertices: The number of each in the base mesh (V,)
            (anny: ``model.base_mesh_vertex_indices``).
        bone_heads_m: As for `makehuman_joints`.
        bone_names: As for `makehuman_joints`.

    Returns:
        Landmarks (..., 33, 3) in the same axes and dtype.

    Raises:
        ValueError: A bone or a vertex is missing.
    """
    parts = [landmark_parts(landmark) for landmark in LANDMARK_NAMES]
    from_bones = bone_matrix([bones for bones, _ in parts], bone_names) @ bone_heads_m
    row_of = {int(number): row for row, number in enumerate(np.asarray(base_vertices))}
    from_skin = np.zeros_like(from_bones)
    for index, (_, skin) in enumerate(parts):
        for number, share in skin.items():
            if number not in row_of:
                raise ValueError(f"the mesh lacks base vertex {number} ({LANDMARK_NAMES[index]})")
            from_skin[..., index, :] += share * vertices_m[..., row_of[number], :]
    return (from_bones + from_skin).astype(vertices_m.dtype)
