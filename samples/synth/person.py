"""A MakeHuman person in clothes, posed by MakeHuman's own rig of 104 bones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.body.makehuman import makehuman_joints, makehuman_landmarks
from pipeline.body.making.source import SKIN_VERTICES, MakeHuman
from pipeline.people import PARENTS

_SPINE = {"root": (0, 0.0), "spine05": (0, 0.0), "spine04": (3, 0.4), "spine03": (3, 1.0),
          "spine02": (6, 0.6), "spine01": (9, 0.7)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Person:
    """One dressed body at SMPL's rest pose: ``skin`` and ``clothed`` (V, 3) metres, bone
    ``heads`` (B, 3), ``colors`` (V, 3) in [0, 1], ``faces`` (F, 3)."""

    source: MakeHuman
    skin: np.ndarray
    clothed: np.ndarray
    heads: np.ndarray
    colors: np.ndarray
    faces: np.ndarray
    stature_m: float

    @property
    def joints(self) -> np.ndarray:
        """SMPL's joints at rest, (24, 3)."""
        return makehuman_joints(self.heads[None], self.source.rig.names)[0]


def make_person(source: MakeHuman, random: np.random.Generator) -> Person:
    """A random adult in shirt, trousers, cap and shoes, each standing off the skin."""
    female = random.random() < 0.4
    phenotype = {
        "age": random.uniform(0.6, 0.85),
        "gender": 0.05 if female else 0.95,
        "muscle": random.uniform(0.4, 0.8),
        "weight": random.uniform(0.35, 0.65),
        "proportions": random.uniform(0.5, 0.9),
        "cupsize": random.uniform(0.3, 0.6),
        "firmness": random.uniform(0.4, 0.7),
        "height": random.uniform(0.45, 0.65),
        "african": random.random(), "asian": random.random(), "caucasian": random.random(),
    }  # fmt: skip
    values = {name: np.array([value]) for name, value in phenotype.items()}
    skin, heads = source.shapes(source.coefficients(values))
    skin, heads = skin[0], heads[0]
    faces = source.faces[(source.faces < SKIN_VERTICES).all(1)]
    colors, offset = _clothes(skin, makehuman_joints(heads[None], source.rig.names)[0], random)
    normals = _normals(skin, faces)
    used = skin[:SKIN_VERTICES]
    stature = float(np.ptp(used[np.unique(faces), 1]))
    return Person(source, skin, skin + normals * offset[:, None], heads, colors, faces, stature)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _folds(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Low-frequency waves over the body in [-1, 1]: loose cloth."""
    total = np.zeros(len(points))
    for _ in range(8):
        direction = random.normal(0, 1, 3) * random.uniform(12, 40)
        total += np.sin(points @ direction + random.uniform(0, 6.3)) / 8
    return total


def _clothes(
    skin: np.ndarray, joints: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (V, 3) and distances from the skin (V,) in metres."""
    tone = np.array([0.85, 0.65, 0.52]) * random.uniform(0.45, 1.05)
    shirt, trousers, cap = (
        random.uniform(0.1, 0.85) * (1 - random.uniform(0, 0.6, 3)) for _ in range(3)
    )
    colors = np.tile(tone, (len(skin), 1))
    offset = np.zeros(len(skin))
    folds = _folds(skin, random)
    x, y = np.abs(skin[:, 0]), skin[:, 1]
    wrist, elbow, shoulder = abs(joints[20, 0]), abs(joints[18, 0]), abs(joints[16, 0])
    waist = joints[0, 1] + 0.02
    sleeve = elbow - 0.03 if random.random() < 0.6 else wrist - 0.05
    torso = (y > waist) & (y < joints[12, 1] + 0.01) & (x < shoulder + 0.02)
    sleeves = (x >= shoulder) & (x < sleeve) & (y > joints[9, 1])
    upper = torso | sleeves
    colors[upper] = shirt
    offset[upper] = 0.014 + 0.012 * folds[upper]
    lower = (y <= waist) & (y > joints[7, 1] + 0.04) & (x < shoulder + 0.1)
    colors[lower] = trousers
    offset[lower] = 0.016 + 0.014 * folds[lower]
    belt = (np.abs(y - waist) < 0.018) & (x < shoulder)
    colors[belt], offset[belt] = 0.06, 0.02
    shoe = y <= joints[7, 1] + 0.04
    colors[shoe] = random.uniform(0.02, 0.3)
    offset[shoe] = 0.012
    head = y > joints[15, 1] + 0.12
    colors[head], offset[head] = cap, 0.018
    hair = (y > joints[15, 1] + 0.01) & (y <= joints[15, 1] + 0.12) & (skin[:, 2] < joints[15, 2])
    colors[hair], offset[hair] = random.uniform(0.02, 0.25), 0.014
    return colors, offset


def bone_rotations(person: Person, world: np.ndarray) -> np.ndarray:
    """World rotations (B, 3, 3) of MakeHuman's bones for SMPL joints' world rotations (24, 3, 3).

    Twist is spread along forearm and upper arm, the spine's turn over five bones; fingers are
    half closed. MakeHuman's rig thus bends otherwise than the body that is fitted.
    """

    def blend(a: np.ndarray, b: np.ndarray, part: float) -> np.ndarray:
        between = Rotation.from_matrix(a.T @ b).as_rotvec()
        return a @ Rotation.from_rotvec(part * between).as_matrix()

    rig = person.source.rig
    out = np.tile(np.eye(3), (len(rig.names), 1, 1))
    for number, name in enumerate(rig.names):
        bone, _, side = name.partition(".")
        left = side == "L"
        joint: np.ndarray | None = None
        if name in _SPINE:
            at, part = _SPINE[name]
            joint = world[at] if not part else blend(world[PARENTS[at]], world[at], part)
        elif bone.startswith("neck"):
            joint = blend(world[9], world[12], 0.4 * int(bone[-1]))
        elif bone == "head":
            joint = world[15]
        elif bone in ("clavicle", "shoulder01"):
            joint = world[13 if left else 14]
        elif bone == "upperarm01":
            joint = blend(world[13 if left else 14], world[16 if left else 17], 0.9)
        elif bone == "upperarm02":
            joint = world[16 if left else 17]
        elif bone == "lowerarm01":
            joint = world[18 if left else 19]
        elif bone == "lowerarm02":
            joint = blend(world[18 if left else 19], world[20 if left else 21], 0.5)
        elif bone == "wrist":
            joint = world[20 if left else 21]
        elif bone.startswith("finger") and not bone.startswith("finger1"):
            axis = np.array([0.0, 0.0, -1.0 if left else 1.0])
            curl = Rotation.from_rotvec(0.45 * int(bone[-1]) * axis).as_matrix()
            joint = world[20 if left else 21] @ curl
        elif bone in ("upperleg01", "upperleg02"):
            joint = world[1 if left else 2]
        elif bone in ("lowerleg01", "lowerleg02"):
            joint = world[4 if left else 5]
        elif bone == "foot":
            joint = world[7 if left else 8]
        elif bone.startswith("toe"):
            joint = world[10 if left else 11]
        if joint is None:
            joint = out[rig.parents[number]] if rig.parents[number] >= 0 else world[0]
        out[number] = joint
    return out


def pose_person(
    person: Person, local: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clothed vertices (V, 3), SMPL joints (24, 3) and landmarks (33, 3) in the world, metres.

    ``local`` (24, 3, 3); the lowest point of the feet stands on y = 0; joints and landmarks are
    those of the body under the clothes.
    """
    world = local.copy()
    for joint in range(1, 24):
        world[joint] = world[PARENTS[joint]] @ local[joint]
    rig = person.source.rig
    turned = bone_rotations(person, world)
    heads = person.heads.copy()
    for number, parent in enumerate(rig.parents):
        if parent >= 0:
            heads[number] = heads[parent] + turned[parent] @ (
                person.heads[number] - person.heads[parent]
            )
    move = heads - np.einsum("bij,bj->bi", turned, person.heads)
    table = np.concatenate((turned, move[..., None]), -1).reshape(len(rig.names), 12)
    blended = (rig.weights @ table).reshape(-1, 3, 4)

    def skinned(vertices: np.ndarray) -> np.ndarray:
        return np.einsum("vij,vj->vi", blended[..., :3], vertices) + blended[..., 3]

    clothed, skin = skinned(person.clothed), skinned(person.skin)
    floor = clothed[np.unique(person.faces), 1].min()
    place = shift - [0.0, floor, 0.0]
    clothed, skin, heads = clothed + place, skin + place, heads + place
    joints = makehuman_joints(heads[None], rig.names)[0]
    landmarks = makehuman_landmarks(skin[None], np.arange(len(skin)), heads[None], rig.names)[0]
    return clothed, joints, landmarks
