"""What people tell of gravity and of the floor: feet that stand, and bodies that are upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES

_JOINT = {name: number for number, name in enumerate(JOINT_NAMES)}
_HIPS = [_JOINT["left_hip"], _JOINT["right_hip"]]
_KNEES = [_JOINT["left_knee"], _JOINT["right_knee"]]
_ANKLES = [_JOINT["left_ankle"], _JOINT["right_ankle"]]
_TOES = [_JOINT["left_foot"], _JOINT["right_foot"]]
_NECK = _JOINT["neck"]
ANKLE_M, TOE_M = 0.078, 0.027
"""How high SMPL's ankle and foot joints are above the sole of a flat foot: of the free body's mean
shape (within 1 cm for betas of 2)."""
_BIN_S = 1.0
"""Errors of frames so near to each other are taken as one: a fit is smooth over time."""
_GAP_S = 0.25
_SPEED_SPAN_S = 0.2
_SEEN = 0.5
_STRETCHED, _BENT, _HIP_DEG = 0.94, 0.82, 145.0
"""An upright person has one leg that reaches this share of its length, in line with the trunk, and
another one that is not more bent than a walker's."""
_SLOW_M_S = 0.35
_SAME_LEVEL_M = 0.06
_BELOW_HIPS_M = 0.3
_FARTHEST_M = 1e4
_MOST_TILT_DEG = 60.0
_MOST_TRACKS = 24
_LEAST_S = 0.15
"""A foot must stand, and a body must be upright, for so long in a bin."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person's rows in which the measured joints are known, by rising time."""

    joints_m: np.ndarray
    seen: np.ndarray
    pts_s: np.ndarray


@dataclass(frozen=True, eq=False)
class Axes:
    """Directions of upright bodies, one for each person and second (G).

    Attributes:
        person: (G,) int, 0 to the number of people.
        axis: Unit vectors (G, 3) from the ankles to the neck, in the camera's axes.
        ray: Unit vectors (G, 3) from the camera to the person.
    """

    person: np.ndarray
    axis: np.ndarray
    ray: np.ndarray


@dataclass(frozen=True, eq=False)
class Contacts:
    """Points of the floor under feet that stand, one for each person and second (G).

    Attributes:
        person: (G,) int, 0 to the number of people.
        point_m: (G, 3) in the camera's axes, metres.
    """

    person: np.ndarray
    point_m: np.ndarray


def split_people(
    joints_m: np.ndarray, visibility: np.ndarray, track: np.ndarray, pts_s: np.ndarray
) -> list[Person]:
    """Return the tracks with the most rows, each by rising time."""
    # The rows of a damaged file may hold any number.
    whole = (np.abs(joints_m) < _FARTHEST_M).all((1, 2)) & np.isfinite(pts_s)
    numbers, counts = np.unique(track[whole], return_counts=True)
    people = []
    for number in numbers[np.argsort(-counts, kind="stable")][:_MOST_TRACKS]:
        rows = np.flatnonzero((track == number) & whole)
        rows = rows[np.argsort(pts_s[rows], kind="stable")]
        people.append(Person(joints_m[rows].astype(np.float64), visibility[rows] >= _SEEN,
                             pts_s[rows]))  # fmt: skip
    return people


def find_axes(people: list[Person]) -> Axes:
    """Return the directions of people who stand or walk with nearly straight legs."""
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    for number, person in enumerate(people):
        joints_m = person.joints_m
        hips, knees, ankles = joints_m[:, _HIPS], joints_m[:, _KNEES], joints_m[:, _ANKLES]
        trunk = (joints_m[:, _NECK] - hips.mean(1))[:, None]
        length_m = _length(knees - hips) + _length(ankles - knees)
        reach = _length(ankles - hips) / np.maximum(length_m, 1e-9)
        in_line = _angle_deg(trunk, hips - ankles) < 180 - _HIP_DEG
        # Of a walker one leg stands and the other one swings.
        stands = ((reach > _STRETCHED) & in_line).any(1) & (reach > _BENT).all(1)
        needed = [*_HIPS, *_KNEES, *_ANKLES, _NECK]
        axis = _unit(joints_m[:, _NECK] - ankles.mean(1))
        upwards = -axis[:, 1] > np.cos(np.radians(_MOST_TILT_DEG))
        rows = stands & upwards & person.seen[:, needed].all(1)
        for some in _bins(person.pts_s, rows):
            middle = joints_m[some][:, _HIPS].mean((0, 1))
            found.append((number, _unit(np.median(axis[some], 0)), _unit(middle)))
    return Axes(
        np.array([number for number, _, _ in found], int),
        np.array([axis for _, axis, _ in found]).reshape(-1, 3),
        np.array([ray for _, _, ray in found]).reshape(-1, 3),
    )


def find_contacts(people: list[Person], up: np.ndarray) -> Contacts:
    """Return the points of the floor under feet that stand.

    Args:
        people: The people.
        up: The direction (3,) that is up, as far as it is known: it says which foot is lower.
    """
    found: list[tuple[int, np.ndarray]] = []
    for number, person in enumerate(people):
        joints_m = person.joints_m
        ankles, toes = joints_m[:, _ANKLES], joints_m[:, _TOES]
        # The heel leaves the floor before the toes do, and lands before them.
        on_toes = (toes @ up - TOE_M < ankles @ up - ANKLE_M)[..., None]
        sole_m = np.where(on_toes, toes - TOE_M * up, ankles - ANKLE_M * up)
        height_m = sole_m @ up
        hips_m = joints_m[:, _HIPS].mean(1) @ up
        seen = person.seen[:, _ANKLES] & person.seen[:, _KNEES]
        lower_m = np.where(seen, height_m, np.inf).min(1, keepdims=True)
        stands = (
            seen
            & (_speed_m_s(ankles, person.pts_s) < _SLOW_M_S)
            & (height_m < lower_m + _SAME_LEVEL_M)
            & (hips_m[:, None] - height_m > _BELOW_HIPS_M)
        )
        for some in _bins(person.pts_s, stands.any(1)):
            weight = stands[some][..., None]
            found.append((number, (sole_m[some] * weight).sum((0, 1)) / weight.sum()))
    return Contacts(
        np.array([number for number, _ in found], int),
        np.array([point for _, point in found]).reshape(-1, 3),
    )


def _speed_m_s(points_m: np.ndarray, pts_s: np.ndarray) -> np.ndarray:
    """Return how fast points (N, 2, 3) move across the rays to them (N, 2).

    The depth of people is noisy from frame to frame, and this speed does not see it. Rows at a gap
    in time are infinitely fast.
    """
    count = len(points_m)
    steps = np.diff(pts_s)
    usual_s = float(np.median(steps)) if len(steps) else 0.0
    reach = max(1, round(_SPEED_SPAN_S / 2 / usual_s)) if usual_s > 0 else 1
    before = np.maximum(np.arange(count) - reach, 0)
    after = np.minimum(np.arange(count) + reach, count - 1)
    span_s = pts_s[after] - pts_s[before]
    moved = np.linalg.norm(_unit(points_m[after]) - _unit(points_m[before]), axis=-1)
    speed = moved * np.linalg.norm(points_m, axis=-1) / np.maximum(span_s, 1e-6)[:, None]
    whole = (span_s > 0) & (span_s < _GAP_S + 2 * reach * usual_s)
    return np.where(whole[:, None], speed, np.inf)


def _bins(pts_s: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the chosen rows (N,) of each second that has enough of them."""
    steps = np.diff(pts_s)
    usual_s = float(np.median(steps)) if len(steps) else _BIN_S
    least = max(1, round(_LEAST_S / max(usual_s, 1e-3)))
    rows = np.flatnonzero(chosen)
    place = np.floor((pts_s[rows] - pts_s[0]) / _BIN_S).astype(int) if len(rows) else rows
    for some in np.split(rows, np.flatnonzero(np.diff(place)) + 1):
        if len(some) >= least:
            yield some


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(_length(vectors)[..., None], 1e-9))


def _angle_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angles between vectors (..., 3), 0 to 180."""
    cosine = (_unit(one) * _unit(other)).sum(-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
