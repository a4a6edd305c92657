"""From perceived people to the fit's tensors: rays instead of pixels, edges instead of masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.body.solve import Observations
from pipeline.people import Mask, Person

EDGE_SIZE = 64
"""Side of the signed distance maps; a 400 px person's edge is then good to about 3 px."""


def observe(
    people: Sequence[Sequence[Person | None]], intrinsics: np.ndarray, device: torch.device
) -> Observations:
    """Tensors for P people in T frames; None where a person was not seen in a frame.

    ``intrinsics`` (3, 3) in pixels, without skew. Raises ValueError when nobody is seen at all.
    """
    count, frames = len(people), len(people[0])
    out = {
        "image": np.zeros((count, frames, 33, 2), np.float32),
        "visible": np.zeros((count, frames, 33), np.float32),
        "world_m": np.zeros((count, frames, 33, 3), np.float32),
        "world_spread_m": np.ones((count, frames, 33, 3), np.float32),
        "world_weight": np.zeros((count, frames, 33), np.float32),
        "view": np.tile(np.eye(3, dtype=np.float32), (count, frames, 1, 1)),
        "present": np.zeros((count, frames), np.float32),
        "size": np.ones((count, frames), np.float32),
        "edge": np.zeros((count, frames, 3, EDGE_SIZE, EDGE_SIZE), np.float32),
        "edge_from": np.zeros((count, frames, 2, 3), np.float32),
        "masked": np.zeros((count, frames), np.float32),
        "root_depth_m": np.zeros((count, frames), np.float32),
    }
    if not any(person is not None for row in people for person in row):
        raise ValueError("nobody to fit: no person is seen in any frame of the window")
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
            out["world_m"][p, t] = person.world_m
            out["world_weight"][p, t] = person.visibility
            out["view"][p, t] = rotation_to_ray(0.5 * (low + high))
            out["present"][p, t] = 1.0
            out["size"][p, t] = max(float((high - low).max()) * 1.1, 1e-3)
            out["root_depth_m"][p, t] = person.root_depth_m or 0.0
            if person.mask is not None:
                edge = edge_map(person.mask, focal, centre)
                if edge is not None:
                    out["edge"][p, t], out["edge_from"][p, t] = edge
                    out["masked"][p, t] = 1.0
    return Observations(**{key: torch.from_numpy(value).to(device) for key, value in out.items()})


def rotation_to_ray(ray: np.ndarray) -> np.ndarray:
    """The least rotation (3, 3) that takes the optical axis to the ray (x/z, y/z, 1).

    A network that sees a crop describes the person as if the camera looked straight at them.
    """
    direction = np.append(ray, 1.0) / np.sqrt(1.0 + float(ray @ ray))
    x, y, z = direction
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
    side = EDGE_SIZE
    small = cv2.resize(mask.values, (side, side), interpolation=cv2.INTER_AREA)
    inside = np.asarray(small > 0.5, np.uint8)
    if not 0 < int(inside.sum()) < side * side:
        return None
    outward = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    inward = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    # Distances run between pixel centres; the contour lies half a pixel before the first one.
    signed = np.where(inside > 0, 0.5 - inward, outward - 0.5).astype(np.float32)
    signed = np.asarray(cv2.GaussianBlur(signed, (0, 0), 0.8), np.float32)

    height, width = mask.values.shape
    shrink = np.array([width / side, height / side])
    # small pixel -> mask pixel -> image pixel -> normalised
    linear = mask.to_image[:, :2].astype(np.float64) * shrink
    offset = mask.to_image[:, :2] @ (0.5 * shrink - 0.5) + mask.to_image[:, 2]
    linear, offset = linear / focal[:, None], (offset - centre) / focal
    scale = np.sqrt(abs(np.linalg.det(linear)))
    inverse = np.linalg.inv(linear)
    down, across = np.gradient(signed)
    gradient = np.stack((across, down))
    edge = np.empty((3, side, side), np.float32)
    edge[0] = signed * scale
    edge[1:] = np.einsum("ij,ihw->jhw", inverse, gradient) * scale
    to_grid = 2.0 / (side - 1) * np.concatenate((inverse, -(inverse @ offset)[:, None]), 1)
    to_grid[:, 2] -= 1.0
    return edge, to_grid.astype(np.float32)


def known_rays(seen: Observations) -> Tensor:
    """Landmark weights (P, T, 33): visibility where the person is present, else 0."""
    return seen.visible * seen.present[..., None]
