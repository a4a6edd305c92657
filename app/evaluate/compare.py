"""Compare one frame with the truth: match bodies with people and measure every pair."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from app.evaluate.metrics import distances, from_hips, iou, match, surface_distance
from app.evaluate.replay import Played
from app.evaluate.truth import Truth
from pipeline.core.camera import project, view_rotation
from pipeline.core.people import Person
from render.overlay import silhouette

_SILHOUETTE_WIDTH = 640
"""Silhouettes are compared in pictures no wider than this: they are drawn in each frame."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A row of the truth and the body that was matched with it.

    Attributes:
        row: The row of the truth.
        track: The track of the body.
        mesh_px: The body's landmarks in the image (33, 2), pixels.
        mesh_m: The body's landmarks in camera axes (33, 3), metres.
        perceived_px: The perceived landmarks of the same track (33, 2), pixels; NaN without.
        perceived_m: The perceived world landmarks (33, 3), metres, as the network gives them: in
            the axes of the person's ray, or the camera's (`Person.world_sigma_m`); NaN without.
        turned_m: ``perceived_m`` turned to the camera's axes.
        iou: Intersection over union of the mesh's silhouette; NaN if the truth has no masks.
        perceived_iou: The same of the perceived mask.
        surface_m: The distance between the surfaces, metres; NaN if the truth has none.
        world_m: ``mesh_m`` in the app's own world (33, 3), z up; NaN where it knows none.
        up: Up in the camera's axes (3,), as the app knows it; NaN where it knows no world.
    """

    row: int
    track: int
    mesh_px: np.ndarray
    mesh_m: np.ndarray
    perceived_px: np.ndarray
    perceived_m: np.ndarray
    turned_m: np.ndarray
    iou: float
    perceived_iou: float
    surface_m: float
    world_m: np.ndarray
    up: np.ndarray


@dataclass(frozen=True)
class Tally:
    """The counts of one frame: ``bodies``; ``ghosts``, the bodies matched with no person of the
    truth; and ``doubles``, the ghosts within a torso length of a person that has a body already."""

    frame: int
    bodies: int
    ghosts: int
    doubles: int


def compare(played: Played, truth: Truth, faces: np.ndarray) -> tuple[list[Pair], Tally]:
    """Match one frame's bodies with the truth's people by their landmarks in the image.

    Args:
        played: The frame and its bodies.
        truth: The truth of the clip.
        faces: The body's triangles (F, 3), vertex numbers.

    Returns:
        The matched pairs, and the counts of the frame.
    """
    rows, bodies = truth.rows_of(played.id), played.bodies
    mesh_px = played.landmarks_px
    if mesh_px is None:
        mesh_px = project(bodies.landmarks_m, played.intrinsics)
    torsos = distances(mesh_px, truth.landmarks_px[rows], truth.torso_px[rows])
    matches = match(torsos)
    matched_bodies = {p for _, p in matches}
    matched_rows = [n for n, _ in matches]
    ghosts = [p for p in range(len(bodies)) if p not in matched_bodies]
    doubles = sum(bool((torsos[matched_rows, p] < 1.0).any()) for p in ghosts)
    size, lens = _small(played.size, played.intrinsics)
    # A recording may have no meshes: then there is nothing to draw.
    has_mesh = bodies.vertices_m.shape[1] > 0
    has_masks = truth.masks is not None and len(matches) > 0 and has_mesh
    # All bodies are drawn at once: each pixel belongs to the nearest, so bodies hide each other.
    owner = silhouette(bodies.vertices_m, faces, lens, size) if has_masks else None
    pairs = [_pair(played, truth, int(rows[n]), p, mesh_px[p], owner) for n, p in matches]
    return pairs, Tally(played.id, len(bodies), len(ghosts), doubles)


def _pair(
    played: Played, truth: Truth, row: int, p: int, mesh_px: np.ndarray, owner: np.ndarray | None
) -> Pair:
    track = int(played.bodies.track[p])
    person = played.people.get(track)
    mesh_m = played.bodies.landmarks_m[p]
    unknown = np.full((33, 3), np.nan)
    overlap = perceived_overlap = surface_m = float("nan")
    if owner is not None and (mask := truth.mask(row, owner.shape)) is not None:
        overlap = iou(owner == p, mask)
        perceived = None if person is None else perceived_mask(person, played.size, owner.shape)
        perceived_overlap = float("nan") if perceived is None else iou(perceived, mask)
    has_mesh = played.bodies.vertices_m.shape[1] > 0
    if truth.surface is not None and truth.landmarks_m is not None and has_mesh:
        # From the hips, so that an error of distance does not hide the shape.
        own = played.bodies.vertices_m[p] - _hips(mesh_m)
        surface_m = surface_distance(own, truth.surface(row) - _hips(truth.landmarks_m[row]))
    perceived_m = unknown if person is None or person.world_m is None else person.world_m
    turned_m = perceived_m
    # Metric joints are in the camera's axes already.
    if person is not None and person.world_sigma_m is None:
        turned_m = perceived_m @ view_rotation(person.landmarks_px, played.intrinsics).T
    world_m, up = unknown, unknown[0]
    if played.to_world is not None:
        rotation, offset_m = (part[p] for part in played.to_world)
        world_m, up = mesh_m @ rotation.T + offset_m, rotation[2]
    return Pair(
        row=row,
        track=track,
        mesh_px=mesh_px,
        mesh_m=mesh_m,
        perceived_px=unknown[:, :2] if person is None else person.landmarks_px,
        perceived_m=perceived_m,
        turned_m=turned_m,
        iou=overlap,
        perceived_iou=perceived_overlap,
        surface_m=surface_m,
        world_m=world_m,
        up=up,
    )


def _hips(landmarks_m: np.ndarray) -> np.ndarray:
    """Return the middle of the hips (3,) of landmarks (33, 3)."""
    return landmarks_m[0] - from_hips(landmarks_m)[0]


def _small(size: tuple[int, int], intrinsics: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """Return the size (height, width) and K (3, 3) of a smaller picture, enough for
    silhouettes."""
    scale = min(1.0, _SILHOUETTE_WIDTH / size[1])
    small = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    return small, _shrink(size, small) @ intrinsics


def _shrink(size: tuple[int, int], small: tuple[int, ...]) -> np.ndarray:
    """Return the matrix (3, 3) from pixels of a picture (h, w) to those of a small one; the centres
    of pixels are at whole numbers."""
    y, x = small[0] / size[0], small[1] / size[1]
    # The half pixels keep the pictures' corners, not the first pixels' centres, in place.
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1.0]])


def perceived_mask(
    person: Person, size: tuple[int, int], small: tuple[int, ...]
) -> np.ndarray | None:
    """Return a person's perceived mask as bool (H, W), or None if there is none.

    Args:
        person: The perceived person.
        size: The (height, width) of the frame.
        small: The (height, width) of the result.
    """
    if person.mask is None:
        return None
    to_small = _shrink(size, small) @ np.vstack((person.mask.to_image, [0, 0, 1]))
    # Scaled as a soft mask and cut afterwards, so that the edge stays smooth.
    values = cv2.warpAffine(person.mask.values, to_small[:2], (small[1], small[0]))
    return np.asarray(values > 0.5)
