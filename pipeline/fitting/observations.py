"""From perceived people to the fit's tensors: rays instead of pixels, edges instead of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.core.people import Mask, Person, world_or_flat_m
from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting.layout import Layout, Shape
from pipeline.fitting.solver import FitConfig, Observations

EDGE_SIZE = 64
"""Side of the signed distance maps; a 400 px person's edge is then good to about 3 px."""
BLUR = 0.8
"""How far distances are smoothed, in their pixels: corners would have no slope."""


_SEEN = tuple(f.name for f in fields(Observations))


def layout(frames: int, outlines: bool = False) -> Layout:
    """How a person of ``frames`` frames lies in a row: `Observations`' fields, but those the lifter
    gives. With ``outlines`` the edge maps are left to be made of ``inside`` (`edges.edge_maps`)."""
    edge: dict[str, Shape] = {"edge": (frames, 3, EDGE_SIZE, EDGE_SIZE)}
    if outlines:
        edge = {
            "inside": (frames, EDGE_SIZE, EDGE_SIZE),
            "inverse": (frames, 2, 2),
            "scale": (frames,),
        }
    return Layout(
        image=(frames, LANDMARKS, 2),
        visible=(frames, LANDMARKS),
        world_m=(frames, LANDMARKS, 3),
        view=(frames, 3, 3),
        present=(frames,),
        size=(frames,),
        masked=(frames,),
        root_depth_m=(frames,),
        world_known=(frames,),
        edge_from=(frames, 2, 3),
        **edge,
    )


def write_rows(
    people: Sequence[Sequence[Person | None]],
    intrinsics: np.ndarray,
    rows: np.ndarray,
    outlines: bool = False,
) -> None:
    """Write P people in T frames into ``rows`` (P, `layout`'s size) float32; None where a person
    was not seen in a frame. ``intrinsics`` (3, 3) in pixels, without skew. Raises ValueError when
    nobody is seen at all."""
    if not any(person is not None for row in people for person in row):
        raise ValueError("nobody to fit: no person is seen in any frame of the window")
    rows[:] = 0.0
    out = layout(len(people[0]), outlines).split(rows)
    out["view"][:] = np.eye(3)
    out["size"][:] = 1.0
    focal = intrinsics[[0, 1], [0, 1]].astype(np.float64)
    centre = intrinsics[:2, 2].astype(np.float64)
    for p, row in enumerate(people):
        for t, person in enumerate(row):
            if person is None:
                continue
            rays = (person.landmarks_px - centre) / focal
            low, high = rays.min(0), rays.max(0)
            out["image"][p, t] = rays
            out["visible"][p, t] = person.visibility
            out["world_m"][p, t] = world_or_flat_m(person)
            out["world_known"][p, t] = person.world_m is not None
            out["view"][p, t] = rotation_to_ray(0.5 * (low + high))
            out["present"][p, t] = 1.0
            out["size"][p, t] = max(float((high - low).max()) * 1.1, 1e-3)
            out["root_depth_m"][p, t] = person.root_depth_m or 0.0
            if person.mask is None:
                continue
            inside = inside_of(person.mask)
            if not 0 < int(inside.sum()) < EDGE_SIZE**2:
                continue
            inverse, scale, out["edge_from"][p, t] = _grid_of(person.mask, focal, centre)
            out["masked"][p, t] = 1.0
            if outlines:
                out["inside"][p, t], out["inverse"][p, t] = inside, inverse
                out["scale"][p, t] = scale
            else:
                out["edge"][p, t] = _edge(inside, inverse, scale)


def observations(parts: dict[str, Tensor], config: FitConfig) -> Observations:
    """A `layout`'s parts, edges among them, as the fit takes them: world landmarks as they came."""
    world, visible = parts["world_m"], parts["visible"]
    spread = torch.full_like(world, config.world_sigma_m)
    spread[..., 2] = config.world_depth_sigma_m
    chosen = {name: part for name, part in parts.items() if name in _SEEN}
    weight = visible * parts["world_known"][..., None]
    return Observations(**chosen, world_spread_m=spread, world_weight=weight)


def observe(
    people: Sequence[Sequence[Person | None]],
    intrinsics: np.ndarray,
    device: torch.device,
    config: FitConfig | None = None,
) -> Observations:
    """Tensors for P people in T frames, as for `write_rows`."""
    shape = layout(len(people[0]))
    rows = np.empty((len(people), shape.size), np.float32)
    write_rows(people, intrinsics, rows)
    parts = shape.split(torch.from_numpy(rows).to(device))
    return observations(parts, config or FitConfig())


def rotation_to_ray(ray: np.ndarray) -> np.ndarray:
    """The least rotation (3, 3) that takes the optical axis to the ray (x/z, y/z, 1).

    A network that sees a crop describes the person as if the camera looked straight at them.
    """
    z = 1.0 / math.sqrt(1.0 + float(ray @ ray))
    x, y = ray[0] * z, ray[1] * z
    return np.array(
        [
            [1 - x * x / (1 + z), -x * y / (1 + z), x],
            [-x * y / (1 + z), 1 - y * y / (1 + z), y],
            [-x, -y, z],
        ],
        np.float32,
    )


def edge_map(
    mask: Mask, focal: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Signed distance to a mask's contour (3, n, n) and the map (2, 3) into its grid.

    Channel 0 is the distance in normalised image units, positive outside; 1 and 2 its gradient
    by normalised x and y. None when the mask is empty or full.
    """
    inside = inside_of(mask)
    if not 0 < int(inside.sum()) < EDGE_SIZE**2:
        return None
    inverse, scale, to_grid = _grid_of(mask, focal, centre)
    return _edge(inside, inverse, scale), to_grid


def inside_of(mask: Mask) -> np.ndarray:
    """Where somebody is, (64, 64) uint8, 0 or 1."""
    side = (EDGE_SIZE, EDGE_SIZE)
    small = cv2.resize(mask.values, side, interpolation=cv2.INTER_AREA)
    return np.asarray(small > 0.5, np.uint8)


def _grid_of(
    mask: Mask, focal: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """How normalised coordinates become a mask's small pixels: the linear part (2, 2), a pixel's
    size, and the whole map (2, 3) to grid coordinates in [-1, 1]."""
    height, width = mask.values.shape
    shrink = np.array([width / EDGE_SIZE, height / EDGE_SIZE])
    # small pixel -> mask pixel -> image pixel -> normalised
    linear = mask.to_image[:, :2].astype(np.float64) * shrink
    offset = mask.to_image[:, :2] @ (0.5 * shrink - 0.5) + mask.to_image[:, 2]
    linear, offset = linear / focal[:, None], (offset - centre) / focal
    (a, b), (c, d) = linear
    area = a * d - b * c
    inverse = np.array([[d, -b], [-c, a]]) / area
    to_grid = np.empty((2, 3))
    to_grid[:, :2] = inverse
    to_grid[:, 2] = -(inverse @ offset)
    to_grid *= 2.0 / (EDGE_SIZE - 1)
    to_grid[:, 2] -= 1.0
    return inverse, math.sqrt(abs(area)), to_grid


def _edge(inside: np.ndarray, inverse: np.ndarray, scale: float) -> np.ndarray:
    outward = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    inward = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    # Distances run between pixel centres; the contour lies half a pixel before the first one.
    signed = np.where(inside > 0, 0.5 - inward, outward - 0.5).astype(np.float32)
    signed = np.asarray(cv2.GaussianBlur(signed, (0, 0), BLUR), np.float32)
    down, across = np.gradient(signed)
    edge = np.empty((3, EDGE_SIZE, EDGE_SIZE), np.float32)
    edge[0] = signed * scale
    edge[1:] = np.einsum("ij,ihw->jhw", inverse, np.stack((across, down))) * scale
    return edge


def known_rays(seen: Observations) -> Tensor:
    """Landmark weights (P, T, 33): visibility where the person is present, else 0."""
    return seen.visible * seen.present[..., None]
