"""From a fitted throw to what it measured, with intervals: corrected by what fits get wrong.

A fit of a blurred arm errs by tens of degrees, and in the same way every time. How was learned
from rendered throws (`tools.train_events`): a ridge regression from the four fitted frames to
the truth at the release, whose leave-one-out errors give the intervals. They hold for throws and
views as the renders have them; ``docs/events.md`` says how they fare on renders never seen, and how
much of a value is what was seen and how much what throws are like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.core.skeleton import JOINT_NAMES
from pipeline.events.features import Hand
from pipeline.events.motion import MOTIONS
from pipeline.events.motions.throw.measures import MEASURES, hand_speed, measure, stature_m

LEARNED = "throw"
"""The motion whose corrections were learned."""
ESTIMATOR = MOTIONS / LEARNED / "estimator.npz"
FRAMES = 4
_WRAPPED = ("shoulder_external_rotation", "trunk_rotation", "hip_shoulder_separation")
_J = {name: index for index, name in enumerate(JOINT_NAMES)}


def _other(name: str) -> str:
    for one, two in (("left", "right"), ("right", "left")):
        if name.startswith(one):
            return two + name[len(one) :]
    return name


MIRRORED = [_J[_other(name)] for name in JOINT_NAMES]
_ARM = ("right_shoulder", "right_elbow", "right_wrist", "right_hand", "left_wrist", "left_ankle",
        "right_ankle", "head")  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A measure at the release: its value, the ends of its 95 % interval, and what the fitted body
    itself shows, ``fitted``; in the unit `MEASURES` tells."""

    value: float
    low: float
    high: float
    fitted: float


def right_handed(joints_m: np.ndarray, hand: Hand) -> np.ndarray:
    """Joints (..., 24, 3) in the camera's axes as a mirror shows them, if the hand is the left."""
    if hand == "right":
        return joints_m
    return joints_m[..., MIRRORED, :] * np.array([-1.0, 1.0, 1.0])


def fitted_measures(
    joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
) -> dict[str, float]:
    """`MEASURES` of fitted joints (T, 24, 3), at frame ``key``; a level camera is assumed."""
    told = measure(joints_m[key], hand)
    return {**told, "hand_speed": hand_speed(joints_m, np.asarray(times_s), hand)}


def describe(joints_m: np.ndarray, times_s: Sequence[float], hand: Hand) -> np.ndarray:
    """What the regression is told of four fitted frames (4, 24, 3): every frame's measures, and
    arm, feet and head about the pelvis in the camera's axes, in body heights, all as a right
    hand's."""
    joints = right_handed(np.asarray(joints_m, np.float64), hand)
    # How large somebody is one camera cannot tell.
    joints = joints / max(float(np.mean([stature_m(frame) for frame in joints])), 1e-3)
    parts: list[float] = []
    for frame in joints:
        for name, value in measure(frame, "right").items():
            if name in _WRAPPED:
                parts += [60 * np.sin(np.radians(value)), 60 * np.cos(np.radians(value))]
            else:
                parts.append(value if MEASURES[name].unit == "deg" else 60 * value)
        about = frame[[_J[name] for name in _ARM]] - frame[0]
        parts += list(100 * about.ravel())
        hips = frame[_J["right_hip"]] - frame[_J["left_hip"]]
        parts += list(60 * hips / max(float(np.linalg.norm(hips)), 1e-6))
    parts.append(5 * hand_speed(joints, np.asarray(times_s), "right"))
    return np.array(parts)


@dataclass(frozen=True, eq=False)
class Estimator:
    """The regression: ``mean`` and ``spread`` (F,) of what it is told, ``weights`` (F, M) and
    ``offset`` (M,) for the measures ``names``, ``half`` (M,) the intervals' half widths."""

    names: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    half: np.ndarray

    @classmethod
    @cache
    def load(cls, path: Path = ESTIMATOR) -> Estimator:
        """The one that comes with this package."""
        with np.load(path, allow_pickle=False) as file:
            names = tuple(str(name) for name in file["names"])
            return cls(names, *(file[part] for part in _PARTS))

    def __call__(
        self, joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
    ) -> dict[str, Estimate]:
        """What a throw measured, by name. ``joints_m`` (4, 24, 3) of the frames [t-2, t-1, t, t+1],
        metres in a level camera's axes, ``key`` the release's index; raises ValueError for another
        number of frames."""
        if len(joints_m) != FRAMES:
            raise ValueError(f"a throw is measured in {FRAMES} frames, not {len(joints_m)}")
        told = (describe(joints_m, times_s, hand) - self.mean) / self.spread
        values = told @ self.weights + self.offset
        fitted = fitted_measures(joints_m, times_s, hand, key)
        out = {}
        for name, value, half in zip(self.names, values, self.half):
            # No value and no end of an interval is one that cannot be.
            least = MEASURES[name].least
            at, low, high = (
                max(float(each), least) for each in (value, value - half, value + half)
            )
            out[name] = Estimate(at, low, high, fitted[name])
        return out


_PARTS = ("mean", "spread", "weights", "offset", "half")


def learn(
    told: np.ndarray, truth: Mapping[str, np.ndarray], ridges: Sequence[float]
) -> tuple[Estimator, dict[str, np.ndarray]]:
    """An estimator of what was told (N, F) and the truth (N,) of each measure (NaN: none), and its
    leave-one-out predictions. Each measure has the ridge of ``ridges`` with the least error."""
    mean, spread = told.mean(0), np.maximum(told.std(0), 1e-6)
    unit = (told - mean) / spread
    weights, offsets, halves = [], [], []
    left_out: dict[str, np.ndarray] = {}
    for name, values in truth.items():
        known = ~np.isnan(values)
        x, y = unit[known], values[known]
        tries = [(_left_out(x, y, ridge), ridge) for ridge in ridges]
        predicted, ridge = min(tries, key=lambda each: float(np.abs(each[0] - y).mean()))
        w, b = _ridge(x, y, ridge)
        errors = np.sort(np.abs(predicted - y))
        # The conformal quantile (Vovk et al., Algorithmic Learning in a Random World, 2005).
        halves.append(errors[min(int(np.ceil(0.95 * (len(errors) + 1))), len(errors)) - 1])
        weights.append(w)
        offsets.append(b)
        filled = np.full(len(values), np.nan)
        filled[known] = predicted
        left_out[name] = filled
    names = tuple(truth)
    made = Estimator(
        names, mean, spread, np.stack(weights, 1), np.array(offsets), np.array(halves)
    )  # fmt: skip
    return made, left_out


def save(estimator: Estimator, path: Path = ESTIMATOR) -> None:
    """Write what `Estimator.load` reads."""
    parts = {part: getattr(estimator, part).astype(np.float32) for part in _PARTS}
    np.savez_compressed(path, names=np.array(estimator.names), **parts)


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    gram = x @ x.T + ridge * np.eye(len(x))
    return x.T @ np.linalg.solve(gram, y - y.mean()), float(y.mean())


def _left_out(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Each row's prediction by a regression of the others, in closed form."""
    n = len(x)
    centred = np.eye(n) - 1.0 / n
    kernel = centred @ (x @ x.T) @ centred
    hat = kernel @ np.linalg.inv(kernel + ridge * np.eye(n)) + 1.0 / n
    fitted = hat @ y
    return y - (y - fitted) / np.maximum(1 - np.diag(hat), 1e-6)
