"""Convert MakeHuman's skinning weights to SMPL's 24 joints."""

from __future__ import annotations

import re

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES
from tools.build_body.rest import Rig

_SPINE = re.compile(r"root|pelvis|spine|breast")
# The first pattern that matches the start of a bone's name gives the joints that take its weight.
_LIMBS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"upperleg", {"hip": 1.0}),
    (r"lowerleg", {"knee": 1.0}),
    (r"foot", {"ankle": 1.0}),
    (r"toe", {"foot": 1.0}),
    (r"clavicle|shoulder01", {"collar": 1.0}),
    (r"upperarm", {"shoulder": 1.0}),
    (r"lowerarm", {"elbow": 1.0}),
    (r"wrist|metacarpal|finger1", {"wrist": 1.0}),
    (r"finger", {"hand": 1.0}),
    (r"neck01", {"spine3": 0.5, "neck": 0.5}),
    (r"neck02", {"neck": 1.0}),
    (r"neck03", {"neck": 0.75, "head": 0.25}),
    (r"", {"head": 1.0}),
)
_SPINE_BLEND_M = 0.065


def _smooth_step(values: np.ndarray, start: float, end: float) -> np.ndarray:
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def _bone_table(rig: Rig) -> np.ndarray:
    """Return how each bone outside the spine shares its weight among SMPL's joints (B, 24)."""
    table = np.zeros((len(rig.names), 24))
    for number, name in enumerate(rig.names):
        if _SPINE.match(name):
            continue
        stem, _, side = name.partition(".")
        shares = next(shares for pattern, shares in _LIMBS if re.match(pattern, stem))
        prefix = {"L": "left_", "R": "right_"}.get(side, "")
        for joint, share in shares.items():
            target = joint if joint in JOINT_NAMES else prefix + joint
            table[number, JOINT_NAMES.index(target)] += share
    return table


def _spine_shares(vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return how the trunk's weight is shared (V, 24): by height among pelvis and spine, and near
    the shoulders with the collar joints, because MakeHuman's own clavicles hardly move the
    skin."""
    shares = np.zeros((len(vertices), 24))
    x, y = vertices[:, 0], vertices[:, 1]
    rest = np.ones(len(vertices))
    chain = [JOINT_NAMES.index(name) for name in ("pelvis", "spine1", "spine2", "spine3")]
    for below, above in zip(chain, chain[1:]):
        step = _smooth_step(y, joints[above, 1] - _SPINE_BLEND_M, joints[above, 1] + _SPINE_BLEND_M)
        shares[:, below] = rest * (1 - step)
        rest = rest * step
    neck = joints[JOINT_NAMES.index("neck"), 1]
    high = _smooth_step(y, neck - 0.22, neck - 0.07)
    for name, sign in (("left", 1), ("right", -1)):
        shoulder = joints[JOINT_NAMES.index(f"{name}_shoulder"), 0] * sign
        moved = 0.8 * rest * high * _smooth_step(x * sign, 0.1 * shoulder, 0.95 * shoulder)
        shares[:, JOINT_NAMES.index(f"{name}_collar")] = moved
    collars = shares[:, [JOINT_NAMES.index("left_collar"), JOINT_NAMES.index("right_collar")]]
    shares[:, chain[-1]] = rest - collars.sum(axis=1)
    return shares


def smpl_weights(rig: Rig, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return the skinning weights of SMPL's joints.

    Args:
        rig: MakeHuman's rig, with its weights of the V vertices.
        vertices: Vertices (V, 3) at rest, metres.
        joints: SMPL's joints (24, 3) at rest, metres.

    Returns:
        Weights (V, 24): at most four for each vertex, with the sum one, in whole 1024ths, which
        half precision holds exactly.
    """
    spine = np.array([bool(_SPINE.match(name)) for name in rig.names])
    trunk = rig.weights[:, spine].sum(axis=1, keepdims=True)
    weights = rig.weights @ _bone_table(rig) + trunk * _spine_shares(vertices, joints)
    return four_largest(weights)


def four_largest(weights: np.ndarray) -> np.ndarray:
    """Keep each row's four largest weights, as whole 1024ths that sum to one."""
    order = np.argsort(-weights, axis=1, kind="stable")
    kept = weights.copy()
    np.put_along_axis(kept, order[:, 4:], 0.0, axis=1)
    # Half precision holds these exactly; what rounding leaves goes to the largest.
    kept = np.round(kept / kept.sum(axis=1, keepdims=True) * 1024)
    largest = order[:, :1]
    missing = 1024 - kept.sum(axis=1, keepdims=True)
    np.put_along_axis(kept, largest, np.take_along_axis(kept, largest, 1) + missing, axis=1)
    return kept / 1024
