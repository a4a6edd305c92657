"""Gravity and the floor in the camera's axes: given, or estimated from people.

The estimate is a least-squares fit (robust: soft L1) of the up direction, the camera's height and
each person's own floor. A person of the wrong size is at the wrong distance by the same factor, and
so is the floor under that person; the direction up is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.core.world import World, world_from_up
from pipeline.world.camera_pose import CameraPose
from pipeline.world.cues import Axes, Contacts, find_axes, find_contacts, split_people

# What is usual of cameras before anything is seen. Wide: it decides where people say nothing.
_PITCH_DEG, _ROLL_DEG, _HEIGHT_M = 25.0, 8.0, (1.5, 4.0)
# How well a given value is known.
_GIVEN_DEG, _GIVEN_M = 0.05, 0.005
# Errors of a second's body axis, and of all of a person's: towards the camera, where a picture says
# little, and sideways.
_LEAN_DEG, _TILT_DEG = 3.0, 2.0
_PERSON_LEAN_DEG, _PERSON_TILT_DEG = 3.0, 1.5
# Errors of a second's floor point: of its distance as a share, of a foot against its person's
# distance, and across the ray.
_DEPTH, _LIMB_M, _ACROSS_M = 0.04, 0.03, 0.02
_SIZE = 0.05
"""A person's size against the truth, as a share."""
_COMMON_DEG = 1.0
"""What all people share, such as the error of a guessed lens."""
_WORST_DEG = 6.0
"""A less certain direction is not used. A camera taken as level is often off by more."""
_ROUNDS = 3
_MOST_ROWS, _BLOCK_ROWS = 6000, 300
_DIRECTION = 2
"""The direction's numbers in a solution, which come first; the height is the next one."""


@dataclass(frozen=True, eq=False)
class Ground:
    """The floor and gravity in the camera's axes.

    Attributes:
        up: The direction up (3,) float64, a unit vector.
        camera_height_m: The distance of the camera's centre above the floor; NaN: not known.
        up_source: "given", "people", "feet", "feet and people" or "assumed level".
        height_source: "given", "feet" or "unknown".
        up_error_deg: The standard error of the direction, NaN where it is assumed.
        height_error_m: The standard error of the height, NaN where it is not known.
    """

    up: np.ndarray
    camera_height_m: float
    up_source: str
    height_source: str
    up_error_deg: float
    height_error_m: float

    @property
    def source(self) -> str:
        """How each is known, in one line."""
        up, height = f"up: {self.up_source}", f"floor: {self.height_source}"
        if self.up_source not in ("given", "assumed level"):
            up += f" (error about {self.up_error_deg:.1f} degrees)"
        if self.height_source == "feet":
            height += f" (error about {self.height_error_m:.2f} m)"
        return f"{up}; {height}"

    @property
    def world(self) -> World:
        """The world with its origin on the floor below the camera, or at the camera's centre where
        the floor is not known."""
        height_m = 0.0 if np.isnan(self.camera_height_m) else self.camera_height_m
        return world_from_up(self.up, height_m)


def up_of(pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Return the direction up (3,) in the axes of a camera that looks down by ``pitch_deg`` and
    whose right side is lowered by ``roll_deg``."""
    pitch, roll = np.radians((pitch_deg, roll_deg))
    across = np.cos(pitch)
    return np.array([-np.sin(roll) * across, -np.cos(roll) * across, -np.sin(pitch)])


def pose_of(up: np.ndarray) -> tuple[float, float]:
    """Return (pitch, roll) in degrees of a camera by the direction up (3,) in its axes."""
    pitch = np.arcsin(np.clip(-up[2], -1, 1))
    return float(np.degrees(pitch)), float(np.degrees(np.arctan2(-up[0], -up[1])))


def estimate_ground(
    joints_m: np.ndarray,
    visibility: np.ndarray,
    track: np.ndarray,
    pts_s: np.ndarray,
    given: CameraPose | None = None,
) -> Ground:
    """Return gravity and the floor from people who stand and walk.

    Bodies with nearly straight legs are upright, and feet that stand share a plane. What is given
    wins. What remains uncertain is not used: the camera is taken as level, the floor as unknown.

    Args:
        joints_m: SMPL's joints (N, 24, 3) of all people in the camera's axes, metres.
        visibility: (N, 24), 0 to 1.
        track: The person of each row (N,).
        pts_s: The time of each row (N,), seconds.
        given: What is known of the camera.
    """
    given = given or CameraPose()
    fixed = up_of(given.pitch_deg or 0.0, given.roll_deg or 0.0)
    known = given.pitch_deg is not None
    if known and given.height_m is not None:
        return Ground(fixed, given.height_m, "given", "given", 0.0, 0.0)
    people = split_people(joints_m, visibility, track, pts_s)
    axes = find_axes(people)
    # A first direction tells which foot is the lower one; better ones follow.
    first = fixed
    if not known and len(axes.axis):
        first = np.median(axes.axis, 0)
        first = first / np.linalg.norm(first)
    fit = _Fit(axes, find_contacts(people, first), len(people), given, first)
    for _ in range(_ROUNDS - 1):
        fit = _Fit(axes, find_contacts(people, fit.up), len(people), given, fit.up)
    return _judged(fit, given, fixed)


def _judged(fit: _Fit, given: CameraPose, fixed: np.ndarray) -> Ground:
    """Return what of a solution is certain enough, and how it is known."""
    up, up_source, error_deg = fit.up, "assumed level", float("nan")
    if given.pitch_deg is not None:
        up, up_source, error_deg = fixed, "given", 0.0
    elif (len(fit.axes.person) + len(fit.contacts.person)) and fit.up_error_deg <= _WORST_DEG:
        up_source, error_deg = fit.direction_cues(), fit.up_error_deg
    else:
        up = fixed
    height_m, height_source, error_m = float("nan"), "unknown", float("nan")
    if given.height_m is not None:
        height_m, height_source, error_m = given.height_m, "given", 0.0
    elif len(fit.contacts.person) and up_source != "assumed level":
        # Wherever the direction is a little wrong, this height still puts the feet on the floor.
        height_m, height_source, error_m = fit.height_m, "feet", fit.height_error_m
    return Ground(up, height_m, up_source, height_source, error_deg, error_m)


def sample_rows(count: int) -> np.ndarray:
    """Return the rows of a recording that `estimate_ground` is to read, rising.

    Of a long one they are blocks of neighbouring rows, because feet that stand are found by time.

    Args:
        count: The number of its rows.
    """
    if count <= _MOST_ROWS:
        return np.arange(count)
    starts = np.linspace(0, count - _BLOCK_ROWS, _MOST_ROWS // _BLOCK_ROWS).astype(int)
    return (starts[:, None] + np.arange(_BLOCK_ROWS)).ravel()


class _Fit:
    """One solution: the direction up, the camera's height, and for each person the floor's own
    height below the camera, the lean and the tilt.

    Args:
        axes: The upright bodies.
        contacts: The standing feet.
        count: The number of people.
        given: What is known of the camera.
        start: The direction up (3,) to begin with.
    """

    def __init__(
        self, axes: Axes, contacts: Contacts, count: int, given: CameraPose, start: np.ndarray
    ) -> None:
        from scipy.optimize import least_squares

        self.axes, self.contacts, self._given, self._start = axes, contacts, given, start
        self._count = count
        # Two directions across the first one, in which it may move.
        self._across = np.linalg.svd(start[None])[2][1:]
        first = np.zeros(_DIRECTION + 1 + 3 * count)
        below_m = -contacts.point_m @ start
        first[_DIRECTION] = np.median(below_m) if len(below_m) else _HEIGHT_M[0]
        first[3 : 3 + count] = first[_DIRECTION]
        if given.height_m is not None:
            first[_DIRECTION] = given.height_m
        # No camera is under the floor, or upside down.
        low = np.full(len(first), -np.inf)
        low[_DIRECTION : 3 + count] = 0.0
        low[:_DIRECTION] = -1.0
        high = np.where(np.arange(len(first)) < _DIRECTION, 1.0, np.inf)
        first = np.clip(first, low + 1e-3, high)
        solved = least_squares(
            self._residuals, first, bounds=(low, high), loss="soft_l1", f_scale=1.5, x_scale="jac"
        )
        self._solved = solved
        self.up = self._up(solved.x)
        self.height_m = float(solved.x[_DIRECTION])
        measured = 2 * len(axes.person) + len(contacts.person)
        # Where people fit each other worse than is usual, so is the result.
        worse = max(1.0, float(2 * solved.cost) / max(measured, 1))
        spread = np.sqrt(worse) * _errors(solved.jac)
        self.up_error_deg = float(np.hypot(np.degrees(np.hypot(*spread[:2])), _COMMON_DEG))
        self.height_error_m = float(spread[_DIRECTION])

    def direction_cues(self) -> str:
        """Return which cues the direction rests on: those without which it is less certain."""
        jacobian, groups = self._solved.jac, len(self.axes.person)
        by_people = np.arange(len(jacobian)) < 2 * groups
        by_feet = ~by_people & (np.arange(len(jacobian)) < 2 * groups + len(self.contacts.person))
        whole = np.hypot(*_errors(jacobian)[:2])
        words = []
        for word, rows in (("feet", by_feet), ("people", by_people)):
            if np.hypot(*_errors(jacobian[~rows])[:2]) > 1.1 * whole:
                words.append(word)
        return " and ".join(words) or "feet and people"

    def _up(self, values: np.ndarray) -> np.ndarray:
        up = self._start + values[:_DIRECTION] @ self._across
        return up / np.linalg.norm(up)

    def _residuals(self, values: np.ndarray) -> np.ndarray:
        up, height_m = self._up(values), values[_DIRECTION]
        own_height_m, lean, tilt = values[3:].reshape(3, self._count)
        return np.concatenate(
            (
                self._of_axes(up, lean, tilt),
                self._of_contacts(up, own_height_m),
                (own_height_m - height_m) / (_SIZE * max(abs(height_m), 0.5)),
                lean / np.radians(_PERSON_LEAN_DEG),
                tilt / np.radians(_PERSON_TILT_DEG),
                self._of_camera(up, height_m),
            )
        )

    def _of_axes(self, up: np.ndarray, lean: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        """How far upright bodies are off the direction up, towards the camera and sideways."""
        axis, ray, person = self.axes.axis, self.axes.ray, self.axes.person
        towards = ray - (ray * axis).sum(1, keepdims=True) * axis
        towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
        sideways = np.cross(axis, towards)
        return np.concatenate(
            (
                (towards @ up - lean[person]) / np.radians(_LEAN_DEG),
                (sideways @ up - tilt[person]) / np.radians(_TILT_DEG),
            )
        )

    def _of_contacts(self, up: np.ndarray, own_height_m: np.ndarray) -> np.ndarray:
        """How far standing feet are off their person's floor."""
        point_m = self.contacts.point_m
        above_m = point_m @ up
        steep = above_m / np.maximum(np.linalg.norm(point_m, axis=1), 1e-9)
        # An error along the ray moves a point off the floor only as far as the ray is steep.
        error_m = np.sqrt((_DEPTH * above_m) ** 2 + (_LIMB_M * steep) ** 2 + _ACROSS_M**2)
        return np.asarray((above_m + own_height_m[self.contacts.person]) / error_m)

    def _of_camera(self, up: np.ndarray, height_m: float) -> np.ndarray:
        """How far a camera is off what is given, or usual."""
        found: Callable[[np.ndarray], tuple[float, float]] = pose_of
        pitch, roll = found(up)
        given = self._given
        height, about_m = _HEIGHT_M if given.height_m is None else (given.height_m, _GIVEN_M)
        return np.array(
            [
                (pitch - (given.pitch_deg or 0.0))
                / (_PITCH_DEG if given.pitch_deg is None else _GIVEN_DEG),
                (roll - (given.roll_deg or 0.0))
                / (_ROLL_DEG if given.roll_deg is None and given.pitch_deg is None else _GIVEN_DEG),
                (height_m - height) / about_m,
            ]
        )


def _errors(jacobian: np.ndarray) -> np.ndarray:
    """Return the standard error of each number of a solution (P,)."""
    # The priors hold every number, so the inverse exists.
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian))))
