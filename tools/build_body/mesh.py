"""Reduce MakeHuman's mesh to its visible surface, close it, and make it light enough to draw
live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES
from tools.build_body.makehuman import landmark_parts, makehuman_joints
from tools.build_body.simplify import (
    boundary_loops,
    close_loop,
    count_views,
    largest_piece,
    simplify,
)
from tools.build_body.skinning import four_largest, smpl_weights
from tools.build_body.source import SKIN_VERTICES, MakeHuman

_LEFT_EYE = slice(14598, 14670)
_HALF_VERTICES = 3550


def left_half(source: MakeHuman, mean: np.ndarray) -> np.ndarray:
    """Return the triangles (F, 3) of the left half of the visible skin, with mouth, nostrils, ears
    and eyes closed and only the body's midline open. ``mean`` (V, 3) is the average body."""
    eyes = (source.faces >= SKIN_VERTICES).any(axis=1)
    head = source.rig.weights[:, source.rig.index["head"] :].sum(axis=1) > 0.5
    hidden = np.zeros(len(mean), dtype=bool)
    # Only the head has hidden skin: mouth, nostrils and ears.
    near = head[source.faces].all(axis=1)
    hidden[head] = count_views(mean[head], _renumber(source.faces[near], head))[: head.sum()] < 2
    # One half only: mirroring it makes the mesh exactly symmetric.
    half = ~eyes & (mean[source.faces, 0] > -1e-6).all(axis=1)
    faces = largest_piece(source.faces[half & ~hidden[source.faces].any(axis=1)])
    apex = _LEFT_EYE.start + int(mean[_LEFT_EYE, 2].argmax())
    lid = mean[apex]
    filled = [faces]
    for loop in boundary_loops(faces):
        on_midline = np.abs(mean[loop, 0]) < 1e-6
        # An eye is closed towards its foremost point, so that it is not flat.
        if not on_midline.any() and np.linalg.norm(mean[loop].mean(axis=0) - lid) < 0.02:
            ahead = np.roll(loop, -1)
            filled.append(np.stack([loop, ahead, np.full(len(loop), apex)], axis=1))
        elif not on_midline.any():
            filled.append(close_loop(mean, loop, faces))
        else:
            filled += _close_beside_midline(mean, loop, on_midline, faces)
    return np.concatenate(filled)


def _close_beside_midline(
    mean: np.ndarray, loop: list[int], on_midline: np.ndarray, faces: np.ndarray
) -> list[np.ndarray]:
    """Close each part of an open edge that leaves the midline and returns to it."""
    start = int(np.flatnonzero(on_midline)[0])
    walk, centre = np.roll(loop, -start), np.roll(on_midline, -start)
    walk, centre = np.append(walk, walk[0]), np.append(centre, True)
    stops = np.flatnonzero(centre)
    gaps = [(a, b) for a, b in zip(stops, stops[1:]) if b > a + 1]
    return [close_loop(mean, walk[a : b + 1].tolist(), faces) for a, b in gaps]


def _renumber(faces: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return faces with the vertex numbers that remain after the mask ``kept`` (V,)."""
    return (np.cumsum(kept) - 1)[faces]


def mirror_images(vertices: np.ndarray) -> np.ndarray:
    """Return the number of each vertex's mirror image (V,) in a symmetric body (V, 3)."""
    distance, image = cKDTree(vertices).query(vertices * [-1, 1, 1])
    if distance.max() > 1e-4:
        raise ValueError(f"the body is not symmetric: {distance.max():.4f} m")
    return image


def importance(source: MakeHuman, vertices: np.ndarray) -> np.ndarray:
    """Return each vertex's importance (V,): faces, hands and feet stay finer than their size alone
    would need."""
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
    """The light mesh: ``keep`` (V,) are its vertices' numbers in the base mesh; the triangles
    ``faces`` (F, 3) and the mirror images ``mirror`` (V,) have new numbers; ``weights`` (V, 24) are
    skinning weights."""

    keep: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    weights: np.ndarray


def light_skin(source: MakeHuman, coefficients: np.ndarray) -> Skin:
    """Make the light mesh from MakeHuman's: its visible surface, with fewer triangles.

    Args:
        source: MakeHuman's body.
        coefficients: The shapes (C, K) in which it must stay close to the original, the average
            body first.
    """
    stances, heads = source.shapes(coefficients)
    mean = stances[0]
    weights = smpl_weights(source.rig, mean, makehuman_joints(heads[0], source.rig.names))
    marks = [number for name in LANDMARK_NAMES for number in landmark_parts(name)[1]]
    # Landmarks are averages of these vertices, which must not be collapsed.
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
    # Mirrored triangles turn the other way round.
    both = np.concatenate([half, image[half][:, ::-1]])
    keep = np.unique(both)
    number = np.full(len(mean), -1)
    number[keep] = np.arange(len(keep))
    mirror = mirror_images(mean[keep])
    swap = [JOINT_NAMES.index(_other_side(name)) for name in JOINT_NAMES]
    # The mean of both sides, so that they move exactly alike.
    even = four_largest((weights[keep] + weights[keep][mirror][:, swap]) / 2)
    return Skin(keep, number[both], mirror, even)


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return name.replace("left_", "right_")
    return name.replace("right_", "left_")
