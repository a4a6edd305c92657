"""Replace parts of what was perceived by the truth, to find which part causes an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from app.config import ConfigError
from app.evaluate.metrics import distances, from_hips, match
from app.evaluate.truth import Truth
from pipeline.core.camera import view_rotation
from pipeline.core.people import Mask, Person, world_or_flat_m

GIVEN = ("landmarks", "world", "mask", "depth", "depth-map", "noisy-depth-map")
"""The parts of a truth that can replace what is perceived."""
_HIPS = [23, 24]
_MASK_SIDE = 128
_MASK_MARGIN = 1.25
_NOISY_UNIT, _NOISE = 1.7, 0.05
"""A simulated depth network: the true map in another unit, with an error of scale for each frame
(one sigma, in natural logarithms)."""


def check_given(given: Sequence[str], truth: Truth) -> None:
    """Check that a truth has the named parts.

    Args:
        given: The names of the parts, of `GIVEN`.
        truth: The truth.

    Raises:
        ConfigError: A name is unknown, or the truth has no such part.
    """
    has = {
        "landmarks": True,
        "world": truth.landmarks_m is not None or truth.world_m is not None,
        "mask": truth.masks is not None,
        "depth": truth.root_depth_m is not None,
        "depth-map": truth.depth_m is not None,
        "noisy-depth-map": truth.depth_m is not None,
    }
    for name in given:
        if name not in GIVEN:
            raise ConfigError(f"--given {name}: one of {', '.join(GIVEN)}")
        if not has[name]:
            raise ConfigError(f"--given {name}: a {truth.kind} truth has none")


def substitute(
    people: dict[int, Person],
    frame: int,
    truth: Truth,
    given: Sequence[str],
    intrinsics: np.ndarray,
) -> dict[int, Person]:
    """Replace the given parts of one frame's people by the truth.

    Args:
        people: The perceived people by track.
        frame: The number of the frame.
        truth: The truth of the clip.
        given: The parts to replace, of `GIVEN`.
        intrinsics: K (3, 3).

    Returns:
        The people by track. A person that matches no one in the truth stays as perceived.
    """
    rows, tracks = truth.rows_of(frame), list(people)
    perceived_px = np.array([people[track].landmarks_px for track in tracks]).reshape(-1, 33, 2)
    torsos = distances(perceived_px, truth.landmarks_px[rows], truth.torso_px[rows])
    out = dict(people)
    # Matched by the image, as people are in `compare`, so that the same pairs are formed.
    for n, p in match(torsos):
        out[tracks[p]] = _with_truth(people[tracks[p]], truth, int(rows[n]), given, intrinsics)
    if any(name.endswith("depth-map") for name in given):
        # Everyone in the picture is measured, matched or not, as a network would.
        unit = _noise(frame) if "noisy-depth-map" in given else 1.0
        out = {t: replace(p, map_depth=_hips_in_map(p, truth, frame, unit)) for t, p in out.items()}
    return out


def _noise(frame: int) -> float:
    # Seeded by the frame, so that a run can be repeated.
    return _NOISY_UNIT * float(np.exp(_NOISE * np.random.default_rng(frame).standard_normal()))


def _hips_in_map(person: Person, truth: Truth, frame: int, unit: float) -> float | None:
    """Return the true map's value at a person's hips, in units; None where the map is empty."""
    assert truth.depth_m is not None
    if not 0 <= frame < len(truth.depth_m):
        return None
    depth_map = truth.depth_m[frame]
    x, y = np.rint(person.landmarks_px[_HIPS].mean(0) / truth.depth_step).astype(int)
    inside = 0 <= x < depth_map.shape[1] and 0 <= y < depth_map.shape[0]
    depth = float(depth_map[y, x]) if inside else 0.0
    return unit * depth if depth > 0 else None


def _with_truth(
    person: Person, truth: Truth, row: int, given: Sequence[str], intrinsics: np.ndarray
) -> Person:
    changes: dict[str, Any] = {}
    if "landmarks" in given:
        # What the truth does not know stays as perceived.
        known = np.isfinite(truth.landmarks_px[row]).all(-1)
        pixels = np.where(known[:, None], truth.landmarks_px[row], person.landmarks_px)
        changes["landmarks_px"] = pixels.astype(np.float32)
        visibility = np.where(known, truth.visible[row], person.visibility)
        changes["visibility"] = visibility.astype(np.float32)
    if "world" in given:
        pixels = changes.get("landmarks_px", person.landmarks_px)
        world = _world(truth, row, pixels, intrinsics)
        # In the axes of the person's ray, as of a network that states no error.
        changes["world_sigma_m"] = None
        changes["world_m"] = np.where(np.isfinite(world), world, world_or_flat_m(person)).astype(
            np.float32
        )
    if "mask" in given and (mask := _mask(truth, row)) is not None:
        changes["mask"] = mask
    if "depth" in given and truth.root_depth_m is not None:
        changes["root_depth_m"] = float(truth.root_depth_m[row])
    return replace(person, **changes)


def _world(truth: Truth, row: int, pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return a row's world landmarks (33, 3), in the axes of the person's ray, as networks give
    them."""
    if truth.landmarks_m is None:
        assert truth.world_m is not None
        return truth.world_m[row]
    return from_hips(truth.landmarks_m[row]) @ view_rotation(pixels, intrinsics)


def _mask(truth: Truth, row: int) -> Mask | None:
    """Return the true mask in a square around it, at a perceived mask's resolution; None if
    empty."""
    size = truth.size or truth.mask_shape
    full = truth.mask(row, size) if size is not None else None
    if full is None or not full.any():
        return None
    ys, xs = np.nonzero(full)
    low, high = np.array([xs.min(), ys.min()]), np.array([xs.max(), ys.max()])
    step = max(float((high - low).max() + 1) * _MASK_MARGIN / _MASK_SIDE, 1e-3)
    corner = 0.5 * (low + high) - 0.5 * step * (_MASK_SIDE - 1)
    to_image = np.array([[step, 0, corner[0]], [0, step, corner[1]]], np.float32)
    # Blurred as much as it is scaled down, so that the edge keeps its place between pixels.
    soft = cv2.GaussianBlur(full.astype(np.float32), (0, 0), max(0.5 * step, 0.3))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(soft, to_image, (_MASK_SIDE, _MASK_SIDE), flags=flags)
    return Mask(values.astype(np.float32), to_image)
