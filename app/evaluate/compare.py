"""One frame against the truth: who is who, and what is measured of every pair."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.evaluate.given import ray_rotation
from app.evaluate.metrics import distances, from_hips, iou, match, surface_distance
from app.evaluate.replay import Played
from app.evaluate.truth import Truth
from pipeline.core.camera import project
from pipeline.core.people import Person
from render.overlay import silhouette

_SILHOUETTE_WIDTH = 640


@dataclass(frozen=True, eq=False)
class Pair:
    """A row of the truth with a body on it.

    ``mesh_px``, ``mesh_m`` are the body's landmarks; ``seen_px``, ``seen_m`` the perceived ones of
    the same track, ``turned_m`` from the person's ray to the camera's axes; NaN where there are
    none. ``iou`` of the mesh's silhouette, ``seen_iou`` of the perceived mask, ``surface_m``
    between the surfaces; NaN where the truth has none.
    """

    row: int
    track: int
    mesh_px: np.ndarray
    mesh_m: np.ndarray
    seen_px: np.ndarray
    seen_m: np.ndarray
    turned_m: np.ndarray
    iou: float
    seen_iou: float
    surface_m: float


@dataclass(frozen=True)
class Tally:
    """One frame: ``bodies`` in it, ``ghosts`` of them on nobody in the truth, ``doubles`` of those
    within a torso length of somebody who has a body already."""

    frame: int
    bodies: int
    ghosts: int
    doubles: int


def compare(played: Played, truth: Truth, faces: np.ndarray) -> tuple[list[Pair], Tally]:
    """Match one frame's bodies with the truth's people by their landmarks in the image."""
    rows, bodies = truth.rows_of(played.id), played.bodies
    mesh_px = project(bodies.landmarks_m, played.intrinsics)
    apart = distances(mesh_px, truth.landmarks_px[rows], truth.torso_px[rows])
    pairs = match(apart)
    on_somebody = {p for _, p in pairs}
    taken = [n for n, _ in pairs]
    left = [p for p in range(len(bodies)) if p not in on_somebody]
    doubles = sum(bool((apart[taken, p] < 1.0).any()) for p in left)
    size, lens = _small(played.size, played.intrinsics)
    wanted = truth.masks is not None and len(pairs) > 0
    owner = silhouette(bodies.vertices_m, faces, lens, size) if wanted else None
    found = [_pair(played, truth, int(rows[n]), p, mesh_px[p], owner) for n, p in pairs]
    return found, Tally(played.id, len(bodies), len(left), doubles)


def _pair(
    played: Played, truth: Truth, row: int, p: int, mesh_px: np.ndarray, owner: np.ndarray | None
) -> Pair:
    track = int(played.bodies.track[p])
    person = played.people.get(track)
    mesh_m = played.bodies.landmarks_m[p]
    nothing = np.full((33, 3), np.nan)
    overlap = seen_overlap = surface_m = float("nan")
    if owner is not None and (mask := truth.mask(row, owner.shape)) is not None:
        overlap = iou(owner == p, mask)
        seen = None if person is None else seen_mask(person, played.size, owner.shape)
        seen_overlap = float("nan") if seen is None else iou(seen, mask)
    if truth.surface is not None and truth.landmarks_m is not None:
        own = played.bodies.vertices_m[p] - _hips(mesh_m)
        surface_m = surface_distance(own, truth.surface(row) - _hips(truth.landmarks_m[row]))
    turned_m = nothing
    if person is not None and person.world_m is not None:
        turned_m = person.world_m @ ray_rotation(person.landmarks_px, played.intrinsics).T
    return Pair(
        row=row,
        track=track,
        mesh_px=mesh_px,
        mesh_m=mesh_m,
        seen_px=nothing[:, :2] if person is None else person.landmarks_px,
        seen_m=nothing if person is None or person.world_m is None else person.world_m,
        turned_m=turned_m,
        iou=overlap,
        seen_iou=seen_overlap,
        surface_m=surface_m,
    )


def _hips(landmarks_m: np.ndarray) -> np.ndarray:
    """The middle of the hips (3,)."""
    return landmarks_m[0] - from_hips(landmarks_m)[0]


def _small(size: tuple[int, int], intrinsics: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """A smaller picture's (height, width) and K: silhouettes need no more."""
    scale = min(1.0, _SILHOUETTE_WIDTH / size[1])
    small = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    return small, _shrink(size, small) @ intrinsics


def _shrink(size: tuple[int, int], small: tuple[int, ...]) -> np.ndarray:
    """(3, 3) from pixels of a picture (h, w) to those of a small one, centres at whole numbers."""
    y, x = small[0] / size[0], small[1] / size[1]
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1.0]])


def seen_mask(person: Person, size: tuple[int, int], small: tuple[int, ...]) -> np.ndarray | None:
    """A perceived mask in a picture of (h, w) ``size``, as bool (H, W) of the ``small`` one."""
    if person.mask is None:
        return None
    to_small = _shrink(size, small) @ np.vstack((person.mask.to_image, [0, 0, 1]))
    values = cv2.warpAffine(person.mask.values, to_small[:2], (small[1], small[0]))
    return np.asarray(values > 0.5)
