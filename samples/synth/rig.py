"""MakeHuman's own rig, driven by SMPL's joint rotations, and its skinning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial.transform import Rotation

from pipeline.core.skeleton import PARENTS
from tools.build_body.makehuman import makehuman_joints, makehuman_landmarks

# SMPL joint of each driven bone ("{s}" is L or R; the second number is the right side's) and the
# share of the joint's own turn that the bone takes.
_SPINE = {"root": (0, 1.0), "spine05": (3, 0.25), "spine04": (3, 0.7), "spine03": (6, 0.4),
          "spine02": (6, 1.0), "spine01": (9, 1.0), "neck01": (12, 0.35), "neck02": (12, 0.7),
          "neck03": (12, 1.0), "head": (15, 1.0)}  # fmt: skip
_LIMBS = {
    "clavicle": (13, 14), "shoulder01": (13, 14), "upperarm01": (16, 17), "upperarm02": (16, 17),
    "lowerarm01": (18, 19), "lowerarm02": (20, 21), "wrist": (20, 21),
    "upperleg01": (1, 2), "lowerleg01": (4, 5), "foot": (7, 8),
}  # fmt: skip
_FINGERS = [f"finger{finger}-{joint}" for finger in range(1, 6) for joint in range(1, 4)]
_TOES = [f"toe{toe}-1" for toe in range(1, 6)]
BONE_WEIGHTS = 6


def _driven(name: str) -> bool:
    bone = name.partition(".")[0]
    return name in _SPINE or bone in _LIMBS or bone in _FINGERS or bone in _TOES


def _part(turn: np.ndarray, share: float) -> np.ndarray:
    """Return a share of a rotation (3, 3)."""
    return Rotation.from_rotvec(share * Rotation.from_matrix(turn).as_rotvec()).as_matrix()


def _upper_arm(turn: np.ndarray, share: float) -> np.ndarray:
    """Return a shoulder's rotation (3, 3) with a share of its twist about the arm (x at rest).

    A thrower turns the arm outwards by up to 170 degrees and hardly inwards, so the twist is taken
    to be between -240 and 120 degrees.
    """
    x, _, _, w = Rotation.from_matrix(turn).as_quat()
    twist = 2 * np.arctan2(x, w)
    twist = (twist + np.radians(240)) % (2 * np.pi) - np.radians(240)
    return turn @ Rotation.from_rotvec([(share - 1) * twist, 0, 0]).as_matrix()


@dataclass(frozen=True, eq=False)
class Rig:
    """MakeHuman's rig of B bones for one body in SMPL's rest pose: ``names``, ``parents``, and
    ``heads`` (B, 3) at rest, metres. D of the bones are driven; each other bone moves with the
    nearest driven bone above it. ``driven`` (D,) are bone numbers, ``owner`` (B,) indices into
    ``driven``."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    heads: np.ndarray
    driven: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, names: tuple[str, ...], parents: tuple[int, ...], heads: np.ndarray) -> Rig:
        driven = np.array([number for number, name in enumerate(names) if _driven(name)])
        owner = np.zeros(len(names), int)
        for number, parent in enumerate(parents):
            found = np.flatnonzero(driven == number)
            owner[number] = found[0] if len(found) else owner[parent]
        return cls(names, parents, heads, driven, owner)

    def merged(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert skinning weights (V, B) of all bones to the six largest of the driven bones:
        numbers (V, 6) uint8, and shares (V, 6) float16 that nearly sum to 1."""
        total = np.zeros((len(weights), len(self.driven)))
        np.add.at(total.T, self.owner, weights.T)
        numbers = np.argsort(-total, axis=1)[:, :BONE_WEIGHTS]
        shares = np.take_along_axis(total, numbers, 1)
        shares /= shares.sum(1, keepdims=True)
        return numbers.astype(np.uint8), shares.astype(np.float16)

    def turns(self, world: np.ndarray, grips: tuple[float, float]) -> np.ndarray:
        """Return the bones' world rotations (B, 3, 3) for world rotations of SMPL's joints
        (24, 3, 3).

        Twist is spread along the arm, and the spine's rotation over more bones than SMPL has.
        ``grips`` (left, right) close the hands, from 0, open, to 1, a fist.
        """
        out = np.empty((len(self.names), 3, 3))
        for number, name in enumerate(self.names):
            bone, _, side = name.partition(".")
            right = int(side == "R")
            above = world[0] if self.parents[number] < 0 else out[self.parents[number]]
            if name in _SPINE:
                joint, share = _SPINE[name]
                parent = world[max(PARENTS[joint], 0)]
                turned = world[joint] if share == 1 else parent @ _part(
                    parent.T @ world[joint], share
                )  # fmt: skip
            elif bone == "upperarm01":
                collar = world[13 + right]
                turned = collar @ _upper_arm(collar.T @ world[16 + right], 0.45)
            elif bone == "lowerarm02":
                turned = above @ _part(above.T @ world[20 + right], 0.5)
            elif bone in _LIMBS:
                turned = world[_LIMBS[bone][right]]
            elif bone in _TOES:
                turned = world[10 + right]
            elif bone in _FINGERS:
                turned = above @ _curl(bone, right, grips[right])
            else:
                turned = above
            out[number] = turned
        return out

    def pose(self, world: np.ndarray, origin: np.ndarray, grips: tuple[float, float]) -> Posed:
        """Return the rig posed by world rotations of SMPL's joints (24, 3, 3), with the rest pose's
        origin moved to ``origin`` (3,)."""
        turned = self.turns(world, grips)
        heads = np.empty_like(self.heads)
        for number, parent in enumerate(self.parents):
            if parent < 0:
                heads[number] = origin + turned[number] @ self.heads[number]
            else:
                bone = self.heads[number] - self.heads[parent]
                heads[number] = heads[parent] + turned[parent] @ bone
        moves = heads - np.einsum("bij,bj->bi", turned, self.heads)
        return Posed(self, heads, np.concatenate((turned, moves[..., None]), -1)[self.driven])


def _curl(finger: str, right: int, grip: float) -> np.ndarray:
    thumb, joint = finger.startswith("finger1"), int(finger[-1])
    angle = (0.1 + 0.45 * grip) * (joint > 1) if thumb else (0.12 + 0.05 * joint + 1.0 * grip)
    axis = [0.0, (-0.8 if right else 0.8), 0.0] if thumb else [0.0, 0.0, 1.0 if right else -1.0]
    return Rotation.from_rotvec(angle * np.array(axis)).as_matrix()


@dataclass(frozen=True, eq=False)
class Posed:
    """A posed rig: bone ``heads`` (B, 3) and the driven bones' ``transforms`` (D, 3, 4) from the
    rest pose to the world, metres."""

    rig: Rig
    heads: np.ndarray
    transforms: np.ndarray

    def joints(self) -> np.ndarray:
        """Return SMPL's joints (24, 3)."""
        return makehuman_joints(self.heads, self.rig.names)

    def landmarks(self, skin: Surface, base_vertices: np.ndarray) -> np.ndarray:
        """Return BlazePose's landmarks (33, 3), computed from the skin vertices that they need."""
        points = skin.posed(self.transforms)
        return makehuman_landmarks(points, base_vertices, self.heads, self.rig.names)


@dataclass(frozen=True, eq=False)
class Surface:
    """Points at rest (V, 3), float32 metres, with the driven bones that move them: their
    ``numbers`` (V, 6) uint8 and ``shares`` (V, 6) float16."""

    rest: np.ndarray
    numbers: np.ndarray
    shares: np.ndarray

    def posed(self, transforms: np.ndarray) -> np.ndarray:
        """Return the points (V, 3), float64, moved by transforms (D, 3, 4)."""
        return skinned(
            self.rest.astype(np.float64), self.numbers, self.shares.astype(np.float64), transforms
        )


@njit(cache=True, nogil=True)
def skinned(rest, numbers, shares, transforms):
    """Return points (V, 3) moved by the weighted mean of their bones' transforms (linear blend
    skinning)."""
    out = np.zeros_like(rest)
    for v in range(len(rest)):
        total = 0.0
        for k in range(numbers.shape[1]):
            share, bone = shares[v, k], numbers[v, k]
            if share == 0:
                continue
            total += share
            for i in range(3):
                out[v, i] += share * (
                    transforms[bone, i, 0] * rest[v, 0]
                    + transforms[bone, i, 1] * rest[v, 1]
                    + transforms[bone, i, 2] * rest[v, 2]
                    + transforms[bone, i, 3]
                )
        out[v] /= total
    return out
