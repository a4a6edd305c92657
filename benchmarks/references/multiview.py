"""Reconstruct people from several calibrated cameras: a reference for the 3D of a single camera.

    python -m benchmarks.references.multiview CLIP1 CLIP2 CLIP3 CLIP4 \\
        --calibration FILE.qca.xml --out FOLDER

It writes NAME_truth.npz for every clip, with N rows, one for each person in each frame:

- ``frame``, ``person`` (N,)
- ``landmarks_m`` (N, 33, 3): BlazePose's landmarks in that camera's axes (x right, y down, z
  forward), metres
- ``landmarks_good`` (N, 33): where three or more views agree
- ``landmarks_px`` (N, 33, 2): their pinhole projections
- ``residual_px`` (N, 33): how far this camera's own landmarks are from them; NaN where it has none
- ``image_size`` (height, width), ``intrinsics`` (3, 3)
- ``offset_frames``: this camera's clock against the first one's

Each clip is perceived alone. Tracks are matched between views by epipolar distance. Then one bundle
adjustment (Triggs et al. 2000) with Cauchy's loss over all frames moves the landmarks, the bone
lengths (constant, and the same on both sides), the cameras a little, and their clocks.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.core.camera import project
from pipeline.core.skeleton import LANDMARK_NAMES

LIMBS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
SEEN = 0.5
"""A view has a landmark if its visibility is at least this."""
AGREE_M = 0.06
"""A view agrees if its ray passes this near; BlazePose's error of a joint is about half of it."""
NOISE_M = 0.02
"""The assumed noise of a ray at a joint."""
_STEADY_M = 0.01
"""The assumed second difference of a landmark over frames."""
_MAX_OFFSET = 15
"""The largest offset of clocks, in frames."""
_PAD = _MAX_OFFSET + 3
_TURN_RAD, _SHIFT_M = 0.01, 0.04
"""The assumed error of a camera's calibration."""
_ALIKE = 100.0
"""The landmarks of a view have common errors, so against the calibration this many count as one."""
_SWAP_GAIN = 2.0
"""How much better exchanged sides must fit."""


def _swapped_sides() -> list[int]:
    other = {"left": "right", "right": "left"}
    names = ["_".join(other.get(w, w) for w in name.split("_")) for name in LANDMARK_NAMES]
    return [LANDMARK_NAMES.index(name) for name in names]


MIRROR = _swapped_sides()
GROUPS = (list(range(1, 11)), list(range(11, 23)), list(range(23, 33)))


def _twin(pair: tuple[int, int]) -> tuple[int, int]:
    a, b = sorted((MIRROR[pair[0]], MIRROR[pair[1]]))
    return a, b


def _bones() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bones' ends (B, 2), the assumed change of each length (B,) in metres, and the
    number of each bone's length (B,): left and right share one."""
    firm = dict.fromkeys(itertools.combinations(range(11), 2), 0.01)
    firm |= dict.fromkeys([(11, 13), (13, 15), (23, 25), (25, 27)], 0.004)
    firm |= dict.fromkeys([(27, 29), (29, 31), (27, 31)], 0.006)
    firm |= dict.fromkeys([(15, 17), (15, 19), (15, 21), (17, 19), (19, 21)], 0.01)
    firm |= {(11, 12): 0.02, (23, 24): 0.006, (11, 23): 0.03, (11, 24): 0.03}
    firm |= {_twin(pair): width for pair, width in firm.items()}
    sides = [min(pair, _twin(pair)) for pair in firm]
    length = [sorted(set(sides)).index(side) for side in sides]
    return np.array(list(firm)), np.array(list(firm.values())), np.array(length)


BONES, BONE_WIDTH_M, BONE_LENGTH = _bones()


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera. World points become camera points (OpenCV's axes) by ``rotation`` (3, 3)
    and ``translation_m`` (3,); ``intrinsics`` is K (3, 3), ``distortion`` OpenCV's k1, k2, p1,
    p2."""

    intrinsics: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    translation_m: np.ndarray

    def rays(self, points_px: np.ndarray) -> np.ndarray:
        """Return image points (..., 2) as x/z, y/z (..., 2) without distortion."""
        flat = np.asarray(points_px, np.float64).reshape(-1, 1, 2)
        return cv2.undistortPoints(flat, self.intrinsics, self.distortion).reshape(points_px.shape)


@dataclass(frozen=True, eq=False)
class PerceivedClip:
    """The people perceived in one clip, N rows: ``frame``, ``track`` (N,), ``landmarks_px``
    (N, 33, 2), ``visibility`` (N, 33)."""

    frame: np.ndarray
    track: np.ndarray
    landmarks_px: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True, eq=False)
class Views:
    """The matched views of C cameras, P people, F frames: ``rays`` (C, P, F, 33, 2), ``weight``
    (C, P, F, 33), 0 where a camera has no landmark."""

    rays: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The reconstruction of C cameras, P people, F frames.

    Attributes:
        landmarks_m: Landmarks (C, P, F, 33, 3) in each camera's axes at each of its frames.
        ray_distance_m: How far each camera's own ray passes them (C, P, F, 33); NaN without a ray.
        good: Where three or more views agree (C, P, F, 33).
        offset_frames: The numbers (C,) to add to a camera's frame number for the first one's clock.
        cameras: The refined cameras.
        swapped: Whether left and right were exchanged in face, arms and legs (C, P, F, 3).
    """

    landmarks_m: np.ndarray
    ray_distance_m: np.ndarray
    good: np.ndarray
    offset_frames: np.ndarray
    cameras: list[Camera]
    swapped: np.ndarray


def read_calibration(path: str | Path) -> list[Camera]:
    """Read the cameras of a Qualisys calibration (.qca.xml; millimetres, 1/64 px, z up the ray).

    Raises:
        ValueError: The file is not such a calibration; the message is one line.
    """
    try:
        root = ElementTree.parse(path).getroot()
        cameras = [_camera(element) for element in root.iter("camera")]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a Qualisys calibration: {error}") from None
    for number, camera in enumerate(cameras, 1):
        turn = camera.rotation
        # A file in other units or order gives matrices that are no rotations.
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise ValueError(f"{path}: camera {number}'s transform is not a rotation")
    if len(cameras) < 2:
        raise ValueError(f"{path} is not a Qualisys calibration of two cameras or more")
    return cameras


def _camera(element: ElementTree.Element) -> Camera:
    parts = [element.find(name) for name in ("transform", "intrinsic")]
    place, lens = (part.attrib for part in parts if part is not None)
    rotation = [[float(place[f"r{a}{b}"]) for b in (1, 2, 3)] for a in (1, 2, 3)]
    # From Qualisys' axes (y up, z against the view) to OpenCV's.
    rotation = np.diag([1.0, -1.0, -1.0]) @ np.array(rotation)
    centre_m = np.array([float(place[axis]) for axis in "xyz"]) / 1000
    u, v = (float(lens[f"focalLength{axis}"]) / 64 for axis in "UV")
    if not min(u, v) > 0:
        raise ValueError(f"focal length {u:g}, {v:g}")
    cu, cv = (float(lens[f"centerPoint{axis}"]) / 64 for axis in "UV")
    names = [f"{kind}Distortion{k}" for kind in ("radial", "tangental") for k in (1, 2)]
    distortion = np.array([float(lens[name]) for name in names])
    intrinsics = np.array([[u, 0, cu], [0, v, cv], [0, 0, 1]])
    return Camera(intrinsics, distortion, rotation, -rotation @ centre_m)


def perceive_clip(clip: str, people: int) -> tuple[PerceivedClip, tuple[int, int]]:
    """Run this project's perceiver on a clip; return its people and the (height, width)."""
    from pipeline.capture.open import open_source
    from pipeline.runtime.make import make_estimator
    from pipeline.runtime.window import Windower

    estimator = make_estimator(people=people)
    state = estimator.begin()
    source, windower = open_source(clip), Windower(max_wait_ms=float("inf"))
    source.open()
    rows: list[tuple] = []
    size = (0, 0)

    def take(windows) -> None:
        for window in windows:
            perceived = estimator.perceive([window], [state])[0]
            for frame, found in zip(window.frames, perceived.people):
                rows.extend((frame.id, k, p.landmarks_px, p.visibility) for k, p in found.items())

    for frame in source.frames():
        size = frame.size
        take(windower.add(frame))
    take(windower.finish())
    if not rows:
        raise ValueError(f"no person is found in {clip}")
    return PerceivedClip(*(np.array(column) for column in zip(*rows))), size


def match_people(cameras: Sequence[Camera], seen: Sequence[PerceivedClip], people: int) -> Views:
    """Gather the tracks of all views into people, by their epipolar distances.

    The two groups of tracks that fit best are merged, until none fit. A person can be only once in
    a view at a time.

    Args:
        cameras: The cameras.
        seen: The perceived clips, one for each camera.
        people: The number of people.

    Raises:
        ValueError: Fewer people are seen by two or more views.
    """
    frames = 1 + max(int(s.frame.max()) for s in seen)
    tracks = []
    for c, (camera, s) in enumerate(zip(cameras, seen)):
        for name in np.unique(s.track):
            rows = s.track == name
            rays = np.zeros((frames, 33, 2))
            weight = np.zeros((frames, 33))
            rays[s.frame[rows]] = camera.rays(s.landmarks_px[rows])
            weight[s.frame[rows]] = s.visibility[rows]
            tracks.append((c, rays, weight))
    groups = _group(cameras, tracks)
    # The people with the most landmarks first; only ``people`` of them stay.
    groups.sort(key=lambda g: -sum(np.sum(tracks[i][2][:, LIMBS] > SEEN) for i in g))
    groups = [g for g in groups if len({tracks[i][0] for i in g}) > 1][:people]
    if len(groups) < people:
        raise ValueError(f"only {len(groups)} of {people} people are seen alike by two views")
    out = Views(
        np.zeros((len(cameras), people, frames, 33, 2)),
        np.zeros((len(cameras), people, frames, 33)),
    )
    for p, group in enumerate(groups):
        for c, rays, weight in (tracks[i] for i in group):
            known = weight.any(axis=1)
            out.rays[c, p, known], out.weight[c, p, known] = rays[known], weight[known]
    return out


def _group(cameras: Sequence[Camera], tracks: list) -> list[list[int]]:
    count = len(tracks)
    cost = np.full((count, count), np.nan)
    for i, j in itertools.combinations(range(count), 2):
        (a, rays_a, seen_a), (b, rays_b, seen_b) = tracks[i], tracks[j]
        both = np.minimum(seen_a, seen_b)[:, LIMBS] > SEEN
        if a == b:
            # Two tracks of one view at the same time are two people.
            cost[i, j] = np.inf if (seen_a.any(1) & seen_b.any(1)).any() else np.nan
        elif both.any():
            distance = epipolar_distance(cameras[a], cameras[b], rays_a, rays_b)[:, LIMBS][both]
            # Saturated, so that a few frames with a wrong landmark do not separate a person.
            cost[i, j] = np.mean(_saturated(distance, 0.02))
        cost[j, i] = cost[i, j]
    groups = [[i] for i in range(count)]
    while True:
        best, merge = 0.75, None
        for g, h in itertools.combinations(range(len(groups)), 2):
            between = cost[np.ix_(groups[g], groups[h])]
            if not np.isnan(between).all() and np.nanmean(between) < best:
                best, merge = float(np.nanmean(between)), (g, h)
        if merge is None:
            return groups
        groups[merge[0]] += groups.pop(merge[1])


def _saturated(distance: np.ndarray, width: float) -> np.ndarray:
    """Return Geman and McClure's loss, in [0, 1)."""
    square = (distance / width) ** 2
    return square / (1 + square)


def epipolar_distance(a: Camera, b: Camera, rays_a: np.ndarray, rays_b: np.ndarray) -> np.ndarray:
    """Return Sampson's distance (...) of rays (..., 2) of two views, relative to the depth."""
    turn = b.rotation @ a.rotation.T
    x, y, z = b.translation_m - turn @ a.translation_m
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ turn
    one, two = (np.concatenate((r, np.ones_like(r[..., :1])), -1) for r in (rays_a, rays_b))
    line_b, line_a = one @ essential.T, two @ essential
    slope = (line_a[..., :2] ** 2).sum(-1) + (line_b[..., :2] ** 2).sum(-1)
    return np.abs((two * line_b).sum(-1)) / np.sqrt(slope)


def whole_offsets(cameras: Sequence[Camera], views: Views) -> np.ndarray:
    """Return the clocks' offsets (C,) in whole frames, the first 0, at which the views' rays meet
    best."""
    count, frames = len(cameras), views.rays.shape[2]
    span = min(_MAX_OFFSET, frames // 3)
    # Two clocks may be off in opposite directions, so a pair differs by up to twice the limit.
    cost = np.zeros((count, count, 4 * span + 1))
    for a, b in itertools.combinations(range(count), 2):
        for d in range(-2 * span, 2 * span + 1):
            # Frame f of a is the moment of frame f + d of b.
            from_a = slice(max(0, -d), frames - max(0, d))
            from_b = slice(max(0, d), frames + min(0, d))
            distance = epipolar_distance(
                cameras[a], cameras[b], views.rays[a][:, from_a], views.rays[b][:, from_b]
            )
            both = np.minimum(views.weight[a][:, from_a], views.weight[b][:, from_b])[..., LIMBS]
            loss = _saturated(distance[..., LIMBS], 0.01)[both > SEEN]
            # An offset with few common landmarks must not win, so it has the highest cost.
            enough = len(loss) > 0.2 * len(LIMBS) * frames
            cost[a, b, d + 2 * span] = loss.mean() if enough else 1.0
    offset = np.zeros(count, int)
    # One clock at a time, until none changes.
    for _ in range(20):
        before = offset.copy()
        for c in range(1, count):
            totals = []
            for trial in range(-span, span + 1):
                offset[c] = trial
                pairs = itertools.combinations(range(count), 2)
                totals.append(sum(cost[a, b, offset[a] - offset[b] + 2 * span] for a, b in pairs))
            offset[c] = int(np.argmin(totals)) - span
        if (offset == before).all():
            break
    return offset


def triangulate(cameras: Sequence[Camera], views: Views, offset: np.ndarray) -> np.ndarray:
    """Triangulate each landmark from the pair of rays that most other views agree with.

    The landmarks are smoothed by a running median; where no pair has one, it is interpolated.

    Returns:
        World landmarks (P, T, 33, 3), metres; row t is the first camera's frame t - _PAD.
    """
    count, people, frames = views.weight.shape[:3]
    times = frames + 2 * _PAD
    rays = np.zeros((count, people, times, 33, 2))
    weight = np.zeros((count, people, times, 33))
    for c in range(count):
        # The padding holds what other cameras saw before the first one began and after it ended.
        start = _PAD + round(float(offset[c]))
        rays[c, :, start : start + frames] = views.rays[c]
        weight[c, :, start : start + frames] = views.weight[c]
    best = np.full(weight.shape[1:], -np.inf)
    points = np.full((*best.shape, 3), np.nan)
    for a, b in itertools.combinations(range(count), 2):
        candidate = _meet(cameras[a], cameras[b], rays[a], rays[b])
        gain = np.zeros_like(best)
        for c, camera in enumerate(cameras):
            local = candidate @ camera.rotation.T + camera.translation_m
            distance_m = _ray_distance(local, rays[c])
            gain += weight[c] * (1 - _saturated(distance_m, 2 * NOISE_M)) * (local[..., 2] > 0)
        # A pair needs a ray of each camera.
        gain[np.minimum(weight[a], weight[b]) < 0.1] = -np.inf
        better = gain > best
        points[better], best[better] = candidate[better], gain[better]
    return _fill(points)


def _meet(a: Camera, b: Camera, rays_a: np.ndarray, rays_b: np.ndarray) -> np.ndarray:
    """Return the points (..., 3) midway between two cameras' rays where they are nearest."""
    from_a, from_b = (-c.rotation.T @ c.translation_m for c in (a, b))
    along = []
    for camera, rays in ((a, rays_a), (b, rays_b)):
        ray = np.concatenate((rays, np.ones_like(rays[..., :1])), -1) @ camera.rotation
        along.append(ray / np.linalg.norm(ray, axis=-1, keepdims=True))
    cosine = (along[0] * along[1]).sum(-1)
    gap = from_b - from_a
    # Parallel rays meet nowhere.
    scale = np.maximum(1 - cosine**2, 1e-6)
    s = (along[0] @ gap - cosine * (along[1] @ gap)) / scale
    t = (cosine * (along[0] @ gap) - along[1] @ gap) / scale
    return 0.5 * (from_a + s[..., None] * along[0] + from_b + t[..., None] * along[1])


def _ray_distance(local: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return how far rays (..., 2) pass points (..., 3) of their camera, in metres across the
    view."""
    depth = np.maximum(local[..., 2:], 0.1)
    return np.linalg.norm(local[..., :2] - depth * rays, axis=-1)


def _fill(points: np.ndarray) -> np.ndarray:
    people, times = points.shape[:2]
    padded = np.concatenate([np.roll(points, k, axis=1)[None] for k in range(-3, 4)])
    known = ~np.isnan(points[..., 0])
    smooth = points.copy()
    smooth[known] = np.nanmedian(padded[:, known], axis=0)
    flat = smooth.transpose(0, 2, 3, 1).reshape(-1, times)
    for row in flat:
        # A landmark that no pair ever has stays at 0; no ray pulls at it.
        known_at = np.flatnonzero(~np.isnan(row))
        row[:] = np.interp(np.arange(times), known_at, row[known_at]) if len(known_at) else 0.0
    return flat.reshape(people, 33, 3, times).transpose(0, 3, 1, 2).copy()


@dataclass(eq=False)
class State:
    """The variables of the adjustment: ``points`` (P, T, 33, 3), ``lengths`` (P, B), the cameras'
    ``turn`` (C, 3) as axis-angle and ``shift`` (C, 3) from the calibration, and ``offset`` (C,)."""

    points: Tensor
    lengths: Tensor
    turn: Tensor
    shift: Tensor
    offset: Tensor

    def moving(self, cameras: bool) -> list[Tensor]:
        parts = [self.points, self.lengths]
        return parts + [self.turn, self.shift, self.offset] if cameras else parts


class Adjustment:
    """The bundle adjustment's cost and its descent (L-BFGS, Nocedal 1980)."""

    def __init__(self, cameras: Sequence[Camera], views: Views) -> None:
        self.rays, self.weight = torch.tensor(views.rays), torch.tensor(views.weight)
        self.rotation = torch.tensor(np.array([c.rotation for c in cameras]))
        self.translation = torch.tensor(np.array([c.translation_m for c in cameras]))

    def local(self, state: State) -> Tensor:
        """Return the landmarks (C, P, F, 33, 3) in every camera's axes at its frames."""
        frames = self.rays.shape[2]
        when = torch.arange(frames) + _PAD + state.offset[:, None]
        # The cubic needs a frame before and two behind.
        first = when.detach().floor().long().clamp(1, state.points.shape[1] - 3)
        u = (when - first)[None, :, :, None, None]
        p0, p1, p2, p3 = (state.points[:, first + k] for k in (-1, 0, 1, 2))
        # Catmull and Rom's cubic through the frames' landmarks: offsets are parts of frames.
        at = p1 + 0.5 * u * (
            p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0))
        )
        rotation = torch.linalg.matrix_exp(_cross(state.turn)) @ self.rotation
        turned = torch.einsum("cij,pcfkj->cpfki", rotation, at)
        return turned + (self.translation + state.shift)[:, None, None, None]

    def ray_distance(self, state: State) -> Tensor:
        """Return how far each ray passes its landmark (C, P, F, 33), in metres."""
        local = self.local(state)
        # Detached: else the cost could fall by moving a point towards its camera.
        depth = local[..., 2:].detach().clamp(min=0.1)
        return (local[..., :2] - depth * self.rays).square().sum(-1).add(1e-12).sqrt()

    def cost(self, state: State, noise_m: float) -> Tensor:
        """Return the sum of all costs: rays, bone lengths, smoothness and calibration."""
        loss = (self.ray_distance(state) / noise_m).square().log1p()
        total = (self.weight * loss).sum()
        ends = state.points[:, :, BONES[:, 0]] - state.points[:, :, BONES[:, 1]]
        lengths = ends.square().sum(-1).add(1e-8).sqrt()
        wrong = (lengths - state.lengths[:, None, BONE_LENGTH]) / torch.tensor(BONE_WIDTH_M)
        total = total + wrong.square().sum()
        bend = state.points[:, 2:] - 2 * state.points[:, 1:-1] + state.points[:, :-2]
        total = total + (bend / _STEADY_M).square().sum()
        moved = (state.turn / _TURN_RAD).square().sum() + (state.shift / _SHIFT_M).square().sum()
        # The first clock is the reference: the last term holds its offset at 0.
        return total + _ALIKE * moved + state.offset[0].square() * 1e6

    def descend(self, state: State, noise_m: float, cameras: bool, steps: int = 150) -> None:
        """Minimise the cost over a state, in place; with ``cameras`` also over the cameras."""
        parts = state.moving(cameras)
        for part in parts:
            part.requires_grad_(True)
        solver = torch.optim.LBFGS(
            parts, max_iter=steps, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            total = self.cost(state, noise_m)
            total.backward()
            return total

        solver.step(closure)
        for part in parts:
            part.requires_grad_(False)


def _cross(axis: Tensor) -> Tensor:
    x, y, z = axis.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack((o, -z, y, z, o, -x, -y, x, o), -1).unflatten(-1, (3, 3))


def _bone_lengths(points: np.ndarray) -> np.ndarray:
    ends = points[:, :, BONES[:, 0]] - points[:, :, BONES[:, 1]]
    length = np.median(np.linalg.norm(ends, axis=-1), axis=1)
    out = np.zeros((len(points), BONE_LENGTH.max() + 1))
    for b in range(out.shape[1]):
        out[:, b] = length[:, b == BONE_LENGTH].mean(1)
    return out


def choose_sides(views: Views, local: np.ndarray, swapped: np.ndarray) -> Views:
    """Exchange left and right in the views wherever that is nearer to the reconstruction.

    Face, arms and legs are decided separately.

    Args:
        views: The views.
        local: The landmarks in every camera's axes (C, P, F, 33, 3).
        swapped: Is filled with the decisions (C, P, F, 3).

    Returns:
        The changed views.
    """
    rays, weight = views.rays.copy(), views.weight.copy()
    for g, group in enumerate(GROUPS):
        other = [MIRROR[k] for k in group]
        costs = []
        for order in (group, other):
            distance_m = _ray_distance(local[..., group, :], views.rays[..., order, :])
            loss = _saturated(distance_m, 2 * NOISE_M)
            costs.append((views.weight[..., order] * loss).sum(-1))
        swap = swapped[..., g] = costs[0] - costs[1] > _SWAP_GAIN
        for k, twin in zip(group, other):
            rays[..., k, :] = np.where(swap[..., None], views.rays[..., twin, :], rays[..., k, :])
            weight[..., k] = np.where(swap, views.weight[..., twin], weight[..., k])
    return Views(rays, weight)


def reconstruct(
    cameras: Sequence[Camera], seen: Sequence[PerceivedClip], people: int = 2
) -> Reconstruction:
    """Reconstruct all people's landmarks from all views.

    Args:
        cameras: The calibrated cameras.
        seen: The perceived clips, one for each camera.
        people: The number of people.

    Raises:
        ValueError: The numbers differ, or the people cannot be matched.
    """
    if len(cameras) != len(seen):
        raise ValueError(f"{len(seen)} clips, but the calibration has {len(cameras)} cameras")
    raw = match_people(cameras, seen, people)
    offset = whole_offsets(cameras, raw)
    points = triangulate(cameras, raw, offset)
    zero = np.zeros((len(cameras), 3))
    parts = (points, _bone_lengths(points), zero, zero, offset.astype(float))
    state = State(*(torch.tensor(part) for part in parts))
    swapped = np.zeros((*raw.weight.shape[:3], 3), bool)
    views = raw
    # From coarse to fine; after each step the sides are chosen anew.
    for noise_m, move in ((0.08, False), (0.04, False), (0.04, True), (NOISE_M, True)):
        adjustment = Adjustment(cameras, views)
        adjustment.descend(state, noise_m, move)
        # Always from the raw views, so that an earlier exchange can be undone.
        views = choose_sides(raw, adjustment.local(state).numpy(), swapped)
    adjustment = Adjustment(cameras, views)
    adjustment.descend(state, NOISE_M, True, 300)
    local, distance_m = adjustment.local(state).numpy(), adjustment.ray_distance(state).numpy()
    distance_m = np.where(views.weight > 0, distance_m, np.nan)
    return Reconstruction(
        local, distance_m, _agreed(state, distance_m, views.weight), state.offset.numpy(),
        _moved(cameras, state), swapped,
    )  # fmt: skip


def _agreed(state: State, distance_m: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return where three views agree, at each camera's frames (C, P, F, 33)."""
    agrees = (weight > SEEN) & (np.nan_to_num(distance_m, nan=np.inf) < AGREE_M)
    offset = state.offset.numpy()
    count, frames = len(weight), weight.shape[2]
    good = np.zeros(weight.shape, bool)
    for c in range(count):
        # Counted at each camera's own moments: their clocks differ.
        votes = np.zeros(weight.shape[1:], int)
        for other in range(count):
            at = np.rint(np.arange(frames) + offset[c] - offset[other]).astype(int)
            inside = (at >= 0) & (at < frames)
            votes[:, inside] += agrees[other][:, at[inside]]
        good[c] = votes >= 3
    return good


def _moved(cameras: Sequence[Camera], state: State) -> list[Camera]:
    turns = torch.linalg.matrix_exp(_cross(state.turn)).numpy()
    return [
        Camera(c.intrinsics, c.distortion, turn @ c.rotation, c.translation_m + shift)
        for c, turn, shift in zip(cameras, turns, state.shift.numpy())
    ]


def truth_rows(found: Reconstruction, camera: int, seen: PerceivedClip) -> dict[str, np.ndarray]:
    """Return one camera's arrays, as the module describes them, without ``image_size``."""
    people, frames = found.good.shape[1:3]
    last = int(seen.frame.max()) + 1
    person, frame = (grid.ravel() for grid in np.mgrid[:people, : min(frames, last)])
    intrinsics = found.cameras[camera].intrinsics
    landmarks_m = found.landmarks_m[camera, person, frame]
    scale = intrinsics[0, 0] / np.maximum(landmarks_m[..., 2], 0.1)
    return {
        "frame": frame,
        "person": person,
        "landmarks_m": landmarks_m.astype(np.float32),
        "landmarks_good": found.good[camera, person, frame],
        "landmarks_px": project(landmarks_m, intrinsics).astype(np.float32),
        "residual_px": (found.ray_distance_m[camera, person, frame] * scale).astype(np.float32),
        "intrinsics": intrinsics,
        "offset_frames": found.offset_frames[camera],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--people", type=int, default=2)
    args = parser.parse_args(arguments)
    try:
        cameras = read_calibration(args.calibration)
        if len(cameras) != len(args.clips):
            raise ValueError(f"{len(args.clips)} clips for {len(cameras)} calibrated cameras")
        seen, sizes = zip(*(perceive_clip(clip, args.people) for clip in args.clips))
        found = reconstruct(cameras, seen, args.people)
    except (OSError, ValueError) as error:
        sys.exit(f"multiview_reference: {error}")
    args.out.mkdir(parents=True, exist_ok=True)
    for c, clip in enumerate(args.clips):
        rows = truth_rows(found, c, seen[c])
        np.savez_compressed(args.out / f"{Path(clip).stem}_truth.npz", image_size=sizes[c], **rows)
        print(f"{Path(clip).name}: {summary(found, c)}")


def summary(found: Reconstruction, camera: int) -> str:
    """Return one line with the figures of one camera."""
    distance_m, good = found.ray_distance_m[camera][..., LIMBS], found.good[camera][..., LIMBS]
    return (
        f"offset {found.offset_frames[camera]:+.2f} frames; limb landmarks good "
        f"{' / '.join(f'{100 * share:.0f}%' for share in good.mean((1, 2)))}; its rays pass them "
        f"at {1000 * np.nanmedian(distance_m[good]):.0f} mm (median), 90%: "
        f"{1000 * np.nanpercentile(distance_m[good], 90):.0f} mm; sides exchanged in "
        f"{100 * found.swapped[camera][..., 1:].mean():.0f}%"
    )


if __name__ == "__main__":
    main()
