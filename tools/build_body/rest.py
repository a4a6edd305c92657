"""Put MakeHuman's bodies into SMPL's rest pose.

MakeHuman stands with half raised arms and bent elbows; SMPL's zero pose is a T. A pose transfers
between bodies only if their rest poses are the same, so every sampled shape is turned bone by bone
until its limbs point in the directions of SMPL's, and skinned with MakeHuman's own weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tools.build_body.makehuman import makehuman_joints

# Where the left limbs point in SMPL's rest pose, to about a degree (x to the person's left, y up,
# z ahead); the right ones mirror them.
_UPPER_ARM = (1.0, -0.06, -0.085)
_FOREARM = (1.0, 0.045, -0.03)
_HAND = (1.0, -0.10, -0.13)
_PALM = (0.0, -1.0, 0.0)
_THIGH = (0.05, -1.0, 0.04)
_SHIN = (-0.035, -1.0, -0.085)
_TOES_OUT_DEG = 8.0
_CLAVICLE_RAISED_DEG = 9.0
_FORWARD = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Rig:
    """MakeHuman's default rig: the ``names`` and ``parents`` of its B bones, parents first, and the
    skinning ``weights`` (V, B) float32."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    weights: np.ndarray

    @cached_property
    def index(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _frame(along: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Return right-handed frames (..., 3, 3); their columns are ``along``, then ``beside`` made
    orthogonal to it."""
    first = _unit(along)
    second = _unit(beside - (beside * first).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _turn(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Return the rotations (..., 3, 3) about unit axes (..., 3) by angles (...) in radians."""
    x, y, z = np.moveaxis(axis, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _swing(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the smallest rotations (..., 3, 3) from directions ``start`` to ``end``."""
    start, end = _unit(start), _unit(np.broadcast_to(end, start.shape))
    normal = np.cross(start, end)
    sine = np.linalg.norm(normal, axis=-1)
    axis = normal / np.maximum(sine, 1e-12)[..., None]
    return _turn(axis, np.arctan2(sine, (start * end).sum(-1)))


def _twist(rotation: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the angles (...) by which rotations (..., 3, 3) turn about unit axes (..., 3)."""
    antisymmetric = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    trace = np.trace(rotation, axis1=-2, axis2=-1)
    return 2 * np.arctan2((antisymmetric * axis).sum(-1), 1 + trace)


def _arm(heads: np.ndarray, rig: Rig, side: str, out: dict[str, np.ndarray]) -> None:
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    upper, fore, hand = (np.array(v) * mirror for v in (_UPPER_ARM, _FOREARM, _HAND))

    def at(bone: str) -> np.ndarray:
        return heads[:, rig.index[f"{bone}.{side}"]]

    knuckles = np.mean([at(f"finger{finger}-1") for finger in range(2, 6)], axis=0)
    upper_now, fore_now = at("lowerarm01") - at("upperarm01"), at("wrist") - at("lowerarm01")
    hinge_now = np.cross(upper_now, fore_now)
    hinge = np.cross(upper, _FORWARD)
    palm_now = np.cross(at("finger2-1") - at("wrist"), at("finger5-1") - at("wrist"))
    palm_now *= mirror[0] * np.sign(palm_now[:, 1:2] * mirror[0]) * -1
    raised = _turn(_FORWARD * mirror[0], np.radians(_CLAVICLE_RAISED_DEG))
    arm = _frame(upper, hinge) @ np.swapaxes(_frame(upper_now, hinge_now), -1, -2)
    elbow = _frame(fore, hinge) @ np.swapaxes(_frame(fore_now, hinge_now), -1, -2)
    wrist = _frame(hand, np.array(_PALM)) @ np.swapaxes(
        _frame(knuckles - at("wrist"), palm_now), -1, -2
    )
    # The hand's turn about the forearm's axis (pronation) is spread along the forearm.
    axis = _unit(fore)
    pronation = _twist(wrist @ np.swapaxes(elbow, -1, -2), axis)
    for bone in ("clavicle", "shoulder01"):
        out[bone] = np.broadcast_to(raised, arm.shape)
    out["upperarm01"] = out["upperarm02"] = arm
    out["lowerarm01"] = _turn(axis, 0.25 * pronation) @ elbow
    out["lowerarm02"] = _turn(axis, 0.75 * pronation) @ elbow
    out["wrist"] = wrist


def _leg(heads: np.ndarray, rig: Rig, side: str, out: dict[str, np.ndarray]) -> None:
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    joints = makehuman_joints(heads, rig.names)
    # From SMPL's joints: MakeHuman's thigh bones begin further out.
    hip, knee, ankle = joints[:, [1, 4, 7] if side == "L" else [2, 5, 8]].swapaxes(0, 1)
    out["upperleg01"] = out["upperleg02"] = _swing(knee - hip, np.array(_THIGH) * mirror)
    out["lowerleg01"] = out["lowerleg02"] = _swing(ankle - knee, np.array(_SHIN) * mirror)
    toes = heads[:, rig.index[f"toe2-1.{side}"]] - ankle
    yaw = np.radians(_TOES_OUT_DEG) * mirror[0] - np.arctan2(toes[:, 0], toes[:, 2])
    out["foot"] = _turn(np.broadcast_to([0.0, 1.0, 0.0], toes.shape), yaw)


def rest_rotations(heads: np.ndarray, rig: Rig) -> np.ndarray:
    """Return the world rotations (S, B, 3, 3) from MakeHuman's stance to SMPL's rest pose, for S
    shapes with bone heads (S, B, 3). Bones without a rule turn with their parents."""
    ruled: dict[str, np.ndarray] = {}
    for side in "LR":
        part: dict[str, np.ndarray] = {}
        _arm(heads, rig, side, part)
        _leg(heads, rig, side, part)
        ruled |= {f"{bone}.{side}": rotation for bone, rotation in part.items()}
    rotations = np.tile(np.eye(3), (*heads.shape[:2], 1, 1))
    for number, name in enumerate(rig.names):
        if name in ruled:
            rotations[:, number] = ruled[name]
        elif rig.parents[number] >= 0:
            rotations[:, number] = rotations[:, rig.parents[number]]
    return rotations


def put_at_rest(vertices: np.ndarray, heads: np.ndarray, rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    """Put S MakeHuman shapes into SMPL's rest pose.

    Args:
        vertices: Vertices (S, V, 3) in MakeHuman's stance, metres, in SMPL's axes.
        heads: Bone heads (S, B, 3) in the same stance.
        rig: The rig.

    Returns:
        Vertices (S, V, 3) and bone heads (S, B, 3) at rest, with the pelvis joint at the origin.
    """
    rotations = rest_rotations(heads, rig)
    placed = heads.copy()
    # Parents come first in the rig, so each bone finds its parent in place.
    for number, parent in enumerate(rig.parents):
        if parent >= 0:
            bone = heads[:, number] - heads[:, parent]
            turned = np.einsum("sij,sj->si", rotations[:, parent], bone)
            placed[:, number] = placed[:, parent] + turned
    shift = placed - np.einsum("sbij,sbj->sbi", rotations, heads)
    posed = np.empty_like(vertices)
    for shape in range(len(vertices)):
        table = np.concatenate([rotations[shape], shift[shape][..., None]], axis=-1)
        blended = (rig.weights @ table.reshape(len(rig.names), 12)).reshape(-1, 3, 4)
        posed[shape] = np.einsum("vij,vj->vi", blended[..., :3], vertices[shape]) + blended[..., 3]
    pelvis = makehuman_joints(placed, rig.names)[:, :1]
    return posed - pelvis, placed - pelvis
