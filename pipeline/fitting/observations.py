"""From perceived people to the fit's tensors: rays for pixels, edge maps for masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from numba_loops import compiled
from pipeline.core.camera import turn_to_ray
from pipeline.core.people import Mask, Person, world_or_flat_m
from pipeline.core.skeleton import LANDMARKS, SMPL_24
from pipeline.fitting.layout import Layout, Shape
from pipeline.fitting.solver import FitConfig, Observations
from pipeline.fitting.visibility import hidden_parts, picture_sizes, seen_landmarks

EDGE_SIZE = 64
"""Side of an edge map in pixels; the edge of a person of 400 image pixels is good to about 3 px."""
UNKNOWN = -1
"""Marks the pixels of an outline (0 and 1 elsewhere) that a mask says nothing about."""
BLUR = 0.8
"""Standard deviation of the edge maps' blur, in their pixels. Unblurred, corners have no slope."""
_EXACT_M = 1e-4
"""The least standard deviation of world landmarks in a row, where 0 means that none is stated."""


_FIELDS = tuple(f.name for f in fields(Observations))


@cache
def layout(frames: int, outlines: bool = False, surface: int = 0) -> Layout:
    """Return how the observations of one person in ``frames`` frames lie in a row.

    A row holds `Observations`' fields but ``image_spread``, ``world_spread_m``, ``world_weight``
    and ``surface_weight``, which depend on the configuration. With ``outlines`` it holds each
    mask's outline, from which `edges.edge_maps` makes the edge maps on the GPU: a third of the
    numbers to copy, and no OpenCV on the host. With ``surface``, a number of points, it holds what
    a network of MHR bodies knows beyond landmarks: `Person.surface_m` and
    `Person.start_rotations`; ``surface_sigma_m`` and ``start_known`` are 0 where there are none.
    """
    edge: dict[str, Shape] = {"edge": (frames, 3, EDGE_SIZE, EDGE_SIZE)}
    if outlines:
        edge = {
            "inside": (frames, EDGE_SIZE, EDGE_SIZE),
            "inverse": (frames, 2, 2),
            "scale": (frames,),
        }
    skin: dict[str, Shape] = {}
    if surface:
        skin = {
            "surface_m": (frames, surface, 3),
            "surface_sigma_m": (frames,),
            "start_rotations": (frames, len(SMPL_24), 3, 3),
            "start_known": (frames,),
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
        world_sigma_m=(frames,),
        edge_from=(frames, 2, 3),
        **edge,
        **skin,
    )


def write_rows(
    people: Sequence[Sequence[Person | None]],
    intrinsics: np.ndarray,
    sizes: np.ndarray,
    rows: np.ndarray,
    outlines: bool = False,
    surface: int = 0,
) -> None:
    """Write the observations of P people in T frames into ``rows``.

    Landmarks that the perceiver invents (`visibility.invented_landmarks`) count as not visible.

    Args:
        people: P sequences of T people; None where a person was not found in a frame.
        intrinsics: (P, 3, 3) each one's camera's K in pixels, without skew.
        sizes: (P, 2) each one's picture's height and width in pixels, as from `picture_sizes`.
        rows: (P, size of `layout`) float32, overwritten.
        outlines: As for `layout`.
        surface: As for `layout`.

    Raises:
        ValueError: No person is found in any frame, or a surface has another number of points.
    """
    found = [(p, t) for p, row in enumerate(people) for t, person in enumerate(row) if person]
    if not found:
        raise ValueError("no person to fit: none is found in any frame of the window")
    rows[:] = 0.0
    out = layout(len(people[0]), outlines, surface).split(rows)
    out["view"][:] = np.eye(3)
    if surface:
        out["start_rotations"][:] = np.eye(3)
    # Absent frames keep a size of 1 and an identity view, so that nothing is divided by zero.
    out["size"][:] = 1.0
    # All people of all frames at once: one by one, numpy takes longer to begin than to compute.
    at = tuple(np.array(found).T)
    seen = [person for row in people for person in row if person]
    lenses, sizes = intrinsics[at[0]].astype(np.float64), sizes[at[0]]
    points_px = np.array([person.landmarks_px for person in seen], np.float32)
    rays, views = np.empty_like(points_px), np.empty((len(seen), 3, 3), np.float32)
    across = np.empty(len(seen), np.float32)
    _in_rays(points_px, lenses, rays, views, across)
    out["image"][at], out["view"][at], out["size"][at] = rays, views, across
    out["visible"][at] = visible = seen_landmarks(seen, sizes)
    out["world_known"][at] = [person.world_m is not None for person in seen]
    out["world_m"][at] = [world_or_flat_m(person) for person in seen]
    out["present"][at] = 1.0
    out["root_depth_m"][at] = [person.root_depth_m or 0.0 for person in seen]
    for place, person in zip(found, seen):
        if person.world_m is not None and person.world_sigma_m is not None:
            # A row vector times the view: from the camera's axes to the ray frame's, in which
            # the fit compares all world landmarks and the lifter remembers them.
            out["world_m"][place] = person.world_m @ out["view"][place]
            out["world_sigma_m"][place] = max(person.world_sigma_m, _EXACT_M)
        if surface:
            _write_surface(out, place, person)
    masked = [k for k, person in enumerate(seen) if person.mask is not None]
    if masked:
        shown = [seen[k] for k in masked]
        hidden = hidden_parts(shown, EDGE_SIZE, sizes[masked], visible[masked])
        places = tuple(axis[masked] for axis in at)
        focal, centre = lenses[:, [0, 1], [0, 1]][masked], lenses[masked, :2, 2]
        _write_masks(out, places, shown, focal, centre, hidden)


@compiled("void(f4[:, :, ::1], f8[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[::1])")
def _in_rays(points_px, lenses, rays, views, size):
    """Fill the rays (N, K, 2) of image points, the rotations (N, 3, 3) to their middle, and their
    extent (N,), a tenth more than they take, to which the fit's image errors are relative."""
    for n in range(len(points_px)):
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for k in range(points_px.shape[1]):
            for axis in range(2):
                lens = lenses[n, axis]
                value = (points_px[n, k, axis] - lens[2]) / lens[axis]
                rays[n, k, axis] = value
                low[axis], high[axis] = min(low[axis], value), max(high[axis], value)
        turn_to_ray(0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), views[n])
        size[n] = max(1.1 * max(high[0] - low[0], high[1] - low[1]), 1e-3)


def _write_masks(
    out: dict[str, np.ndarray],
    at: tuple[np.ndarray, ...],
    people: Sequence[Person],
    focal: np.ndarray,
    centre: np.ndarray,
    hidden: np.ndarray,
) -> None:
    """Write the outlines or edge maps of N people with masks, each with its lens (N, 2).

    ``hidden`` is as from `hidden_parts`.
    """
    inside = np.empty((EDGE_SIZE, EDGE_SIZE), np.int8)
    inverse, to_grid = np.empty((2, 2)), np.empty((2, 3))
    for k, (place, person) in enumerate(zip(zip(*at), people)):
        assert person.mask is not None
        # A map without both sides has no contour to fit.
        if not _outline(_shrunk(person.mask), hidden[k], inside):
            continue
        scale = _grid_of(*_grid_in(person.mask), focal[k], centre[k], inverse, to_grid)
        out["edge_from"][place], out["masked"][place] = to_grid, 1.0
        if "inside" in out:
            out["inside"][place], out["inverse"][place] = inside, inverse
            out["scale"][place] = scale
        else:
            out["edge"][place] = _edge(inside, inverse, scale)


@compiled("b1(f4[:, ::1], b1[:, ::1], i1[:, ::1])")
def _outline(share, nothing, out):
    """Fill an outline (n, n) from shares of pixels; return whether it has both sides."""
    on = off = 0
    for row in range(len(out)):
        for column in range(len(out)):
            value = share[row, column] > 0.5
            if nothing[row, column]:
                out[row, column] = UNKNOWN
            else:
                out[row, column] = value
                on += value
                off += not value
    return on > 0 and off > 0


def _write_surface(out: dict[str, np.ndarray], at: tuple[int, int], person: Person) -> None:
    """Write what a network of MHR bodies knows of a person beyond landmarks."""
    if person.surface_m is not None:
        out["surface_m"][at] = person.surface_m
        out["surface_sigma_m"][at] = max(person.surface_sigma_m, _EXACT_M)
    if person.start_rotations is not None:
        out["start_rotations"][at] = person.start_rotations
        out["start_known"][at] = 1.0


def observations(parts: dict[str, Tensor], config: FitConfig) -> Observations:
    """Return the observations in a `layout`'s arrays, which include edge maps.

    World landmarks are the perceiver's own. Their standard deviations, and those of the landmarks
    in the image, are ``config``'s; or, where the perceiver states its own, that one and
    ``config.model_sigma_m`` together. World landmarks that were only made from 2D landmarks get no
    weight. The surface, where there is one, is taken about its middle.
    """
    world, visible, sigma_m = parts["world_m"], parts["visible"], parts["world_sigma_m"]
    stated = sigma_m > 0
    total_m = (sigma_m.square() + config.model_sigma_m**2).sqrt()
    spread = torch.full_like(world, config.world_sigma_m)
    spread[..., 2] = config.world_depth_sigma_m
    spread = torch.where(stated[..., None, None], total_m[..., None, None], spread)
    # How long a metre is in the image: the person's size there over the size in metres.
    size_m = 1.1 * (world.amax(2) - world.amin(2))[..., :2].amax(-1)
    per_metre = parts["size"] / size_m.clamp_min(0.1)
    image_spread = torch.where(stated, total_m * per_metre, config.image_sigma * parts["size"])
    chosen = {name: part for name, part in parts.items() if name in _FIELDS}
    weight = visible * parts["world_known"][..., None]
    surface_m, surface_weight = _surface(parts, config)
    return Observations(
        **chosen | {"surface_m": surface_m},
        image_spread=image_spread,
        world_spread_m=spread,
        world_weight=weight,
        surface_weight=surface_weight,
    )


def _surface(parts: dict[str, Tensor], config: FitConfig) -> tuple[Tensor, Tensor]:
    """`Observations.surface_m` and `Observations.surface_weight`."""
    if "surface_m" not in parts:
        none = torch.zeros_like(parts["present"])
        return none[..., None, None].expand(*none.shape, 0, 3), none
    surface_m, sigma_m = parts["surface_m"], parts["surface_sigma_m"]
    variance = sigma_m.square() + config.surface_model_m**2
    return surface_m - surface_m.mean(2, keepdim=True), (sigma_m > 0) / variance


def observe(
    people: Sequence[Sequence[Person | None]],
    intrinsics: np.ndarray,
    device: torch.device,
    config: FitConfig | None = None,
    size: tuple[int, int] | None = None,
) -> Observations:
    """Return the observations of P people in T frames.

    Args:
        people: As for `write_rows`, which raises the same errors.
        intrinsics: (3, 3) the camera's K in pixels, without skew.
        device: Where to put them.
        config: Weights and switches; None takes the defaults.
        size: The picture's height and width in pixels; None takes everything as inside it.
    """
    shape = layout(len(people[0]))
    rows = np.empty((len(people), shape.size), np.float32)
    lenses = np.broadcast_to(intrinsics, (len(people), 3, 3))
    write_rows(people, lenses, picture_sizes([size] * len(people)), rows)
    parts = shape.split(torch.from_numpy(rows).to(device))
    return observations(parts, config or FitConfig())


def edge_map(
    mask: Mask, focal: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the signed distance to a mask's contour and the map into its grid.

    Args:
        mask: A person's soft mask.
        focal: (2,) focal lengths in pixels.
        centre: (2,) principal point in pixels.

    Returns:
        (3, n, n) float32: channel 0 is the distance in normalised image units, positive outside,
        channels 1 and 2 are its gradient by normalised x and y. And (2, 3), which takes normalised
        coordinates to grid coordinates in [-1, 1]. None when the mask is empty or full.
    """
    inside = inside_mask(mask)
    if not 0 < int(inside.sum()) < EDGE_SIZE**2:
        return None
    inverse, to_grid = np.empty((2, 2)), np.empty((2, 3))
    scale = _grid_of(*_grid_in(mask), focal, centre, inverse, to_grid)
    return _edge(inside, inverse, scale), to_grid


def inside_mask(mask: Mask) -> np.ndarray:
    """Return the pixels that are the person's, (64, 64) int8, 0 or 1."""
    return np.asarray(_shrunk(mask) > 0.5, np.int8)


def _shrunk(mask: Mask) -> np.ndarray:
    """The mask's means (64, 64): a pixel is the person's where more than half of it is."""
    side = (EDGE_SIZE, EDGE_SIZE)
    return np.asarray(cv2.resize(mask.values, side, interpolation=cv2.INTER_AREA))


def _grid_in(mask: Mask) -> tuple[np.ndarray, tuple[int, ...]]:
    """A mask's map and shape, as `_grid_of` takes them."""
    return np.ascontiguousarray(mask.to_image, np.float32), mask.values.shape


@compiled("f8(f4[:, ::1], UniTuple(i8, 2), f8[::1], f8[::1], f8[:, ::1], f8[:, ::1])")
def _grid_of(to_image, shape, focal, centre, inverse, to_grid):
    """Write how normalised coordinates map to a mask's edge map; return the size of its pixel.

    ``to_image`` (2, 3) and ``shape`` are the mask's, ``focal`` and ``centre`` are (2,). ``inverse``
    (2, 2) becomes the linear part in pixels, ``to_grid`` (2, 3) the whole map to [-1, 1].
    """
    a, b, left = to_image[0]
    c, d, top = to_image[1]
    fx, fy = focal
    cx, cy = centre
    wide, high = shape[1] / EDGE_SIZE, shape[0] / EDGE_SIZE
    # small pixel -> mask pixel -> image pixel -> normalised. Pixel centres are at whole numbers,
    # so the first small pixel lies at (shrink - 1) / 2.
    left += 0.5 * (a * (wide - 1) + b * (high - 1))
    top += 0.5 * (c * (wide - 1) + d * (high - 1))
    left, top = (left - cx) / fx, (top - cy) / fy
    a, b, c, d = a * wide / fx, b * high / fx, c * wide / fy, d * high / fy
    area = a * d - b * c
    inverse[0, 0], inverse[0, 1] = d / area, -b / area
    inverse[1, 0], inverse[1, 1] = -c / area, a / area
    # `grid_sample` with align_corners puts -1 and 1 on the centres of the outermost pixels.
    step = 2.0 / (EDGE_SIZE - 1)
    for axis in range(2):
        to_grid[axis, 0], to_grid[axis, 1] = inverse[axis, 0] * step, inverse[axis, 1] * step
        to_grid[axis, 2] = -(to_grid[axis, 0] * left + to_grid[axis, 1] * top) - 1.0
    return abs(area) ** 0.5


def edges_of(inside: np.ndarray, inverse: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the edge maps (N, 3, n, n) float32 of outlines, as `Observations.edge` holds them.

    Args:
        inside: (N, n, n) 1 on the person, 0 off it, `UNKNOWN` where the mask says nothing.
        inverse: (N, 2, 2) the linear maps from normalised coordinates to the maps' pixels.
        scale: (N,) the size of a map's pixel in normalised coordinates.
    """
    maps = [_edge(*each) for each in zip(inside.astype(np.int8), inverse, scale.tolist())]
    return np.array(maps, np.float32).reshape(-1, 3, EDGE_SIZE, EDGE_SIZE)


def _edge(inside: np.ndarray, inverse: np.ndarray, scale: float) -> np.ndarray:
    """The edge map (3, n, n) of an outline (n, n), which is 0 where it is `UNKNOWN`."""
    outward = cv2.distanceTransform(np.asarray(inside != 1, np.uint8), cv2.DIST_L2, 5)
    inward = cv2.distanceTransform(np.asarray(inside != 0, np.uint8), cv2.DIST_L2, 5)
    # OpenCV measures between pixel centres; the contour lies half a pixel before the nearest one.
    signed = np.where(inside > 0, 0.5 - inward, outward - 0.5).astype(np.float32)
    signed = np.asarray(cv2.GaussianBlur(signed, (0, 0), BLUR), np.float32)
    down, across = np.gradient(signed)
    edge = np.empty((3, EDGE_SIZE, EDGE_SIZE), np.float32)
    edge[0] = signed * scale
    edge[1:] = np.einsum("ij,ihw->jhw", inverse, np.stack((across, down))) * scale
    # Neither outside nor with a slope: nothing there pulls on a surface point.
    edge[:, inside == UNKNOWN] = 0.0
    return edge


def known_rays(observed: Observations) -> Tensor:
    """Return the weights (P, T, 33) of image landmarks: visibility where the person is present."""
    return observed.visible * observed.present[..., None]
