"""Measure whether `joint_visibility` and `score` mean what they say, on clips with exact truth.

Render some people with seeds that nothing was tuned on, and then:

    python samples/make_pitch.py --suite renders --count 6 --first-seed 8000
    python -m benchmarks.calibration renders

Each clip is played as it is, and as half bodies: cut off below the chest, the hips and the knees,
above the hips, through the middle, and with a board before the legs; also darker and smaller. A
joint is right where the fitted one lies within 0.2 of the torso's length of the true one in the
image, as in PCK. Joints outside the picture are not asked. It prints how often joints of each
`joint_visibility` are right, the same for `score` and the share of a body's joints that are right,
and the expected calibration errors (Guo et al., On calibration of modern neural networks, ICML
2017, equation 3, ten bins). `--fit` prints the curve that fits these clips best, for
`pipeline/fitting/visibility.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2  # (before av)
import numpy as np
from scipy.optimize import lsq_linear

from app.config import Config
from app.evaluate.replay import load_estimator
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.camera import project
from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.fitting.visibility import (
    CALIBRATION,
    LANDMARK_SHARES,
    picture_sizes,
    seen_landmarks,
)
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.one_thread import one_thread
from pipeline.runtime.window import Windower

CLOSE = 0.2
"""A joint is right within this part of the torso's length."""
BINS = 10
_AT = BLAZEPOSE_33.indices
_SHOULDERS, _HIPS = _AT("left_shoulder", "right_shoulder"), _AT("left_hip", "right_hip")
_KNEES, _ANKLES = _AT("left_knee", "right_knee"), _AT("left_ankle", "right_ankle")
_LEAST_TORSO = 0.125
"""A torso seen from above is short in the image: it counts as this part of the body's height."""


@dataclass(frozen=True, eq=False)
class Joints:
    """One body's joints against the truth, (24,) each, and its score.

    ``seen`` is the visibility of the landmarks next to each joint, ``right`` whether it is near the
    true one, ``asked`` whether the true one is in the picture.
    """

    visibility: np.ndarray
    seen: np.ndarray
    right: np.ndarray
    asked: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class View:
    """A way to show a clip: a picture's change, and where pixels (x, y, 1) go by it (2, 3)."""

    change: Callable[[np.ndarray], np.ndarray]
    to_view: np.ndarray


def views(truth: dict[str, np.ndarray]) -> dict[str, View]:
    """Return the ways to show a clip, by name; the cuts are where its first person's limbs are."""
    height, width = (int(side) for side in truth["image_size"])
    marks = truth["landmarks_px"][truth["person"] == 0]

    def level(landmarks: Sequence[int]) -> float:
        return float(np.median(marks[:, landmarks, 1]))

    top = float(np.median(marks[..., 1].min(1)))
    chest = 0.8 * level(_SHOULDERS) + 0.2 * level(_HIPS)
    hips, knees, ankles = level(_HIPS), level(_KNEES), level(_ANKLES)
    room = 0.1 * (ankles - top)
    middle = float(np.median(marks[:, [*_SHOULDERS, *_HIPS], 0]))
    return {
        "whole": View(lambda image: image, np.eye(2, 3)),
        "to the chest": _cut(top - room, chest, middle, height, width),
        "to the hips": _cut(top - room, hips, middle, height, width),
        "to the knees": _cut(top - room, knees, middle, height, width),
        "legs": _cut(0.5 * (chest + hips), ankles + room, middle, height, width),
        "half": _moved(np.array([[1.0, 0, -middle], [0, 1.0, 0]]), width, height),
        "board": View(lambda image: _with_board(image, int(hips)), np.eye(2, 3)),
        "dark": View(_darker, np.eye(2, 3)),
        "small": _moved(np.array([[0.4, 0, 0.3 * width], [0, 0.4, 0.3 * height]]), width, height),
    }


def _cut(top: float, bottom: float, middle: float, height: int, width: int) -> View:
    """The rows from ``top`` to ``bottom`` and one and a half times as many columns, enlarged."""
    top, bottom = max(top, 0.0), min(bottom, float(height))
    left = max(middle - 0.75 * (bottom - top), 0.0)
    right = min(left + 1.5 * (bottom - top), float(width))
    scale = 480 / (bottom - top)
    to_view = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return _moved(to_view, int((right - left) * scale), 480)


def _moved(to_view: np.ndarray, width: int, height: int) -> View:
    def change(image: np.ndarray) -> np.ndarray:
        return np.asarray(
            cv2.warpAffine(image, to_view, (width, height), borderMode=cv2.BORDER_REPLICATE)
        )

    return View(change, to_view)


def _with_board(image: np.ndarray, top: int) -> np.ndarray:
    out = image.copy()
    grain = np.random.default_rng(top).normal(0, 12, (image.shape[0] - top, image.shape[1], 1))
    out[top:] = np.clip(np.array([120, 95, 70]) + grain, 0, 255)
    return out


def _darker(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(0.12 * image + noise, 0, 255).astype(np.uint8)


def play(estimator: BodyEstimator, clip: Path, view: View) -> Iterator[tuple[Frame, dict, object]]:
    """Yield each frame of a clip with its people by track and its bodies."""
    source, windower = (
        open_source(str(clip), SourceOptions(live=False)),
        Windower(max_wait_ms=float("inf")),
    )
    source.open()
    state = estimator.begin()

    def fitted(windows):
        for window in windows:
            (found,) = estimator.perceive([window], [state])
            (pairs,) = estimator.fit([found], [state])
            for (frame, bodies), people in zip(pairs, found.people):
                yield frame, people, bodies

    try:
        for frame in source.frames():
            image = np.ascontiguousarray(view.change(frame.image))
            yield from fitted(windower.add(replace(frame, pixels=image)))
        yield from fitted(windower.finish())
    finally:
        source.close()


def measure(estimator: BodyEstimator, clip: Path, view: View, truth: dict) -> list[Joints]:
    """Return the joints of all bodies of a clip, each against the nearest person of the truth."""
    turn, shift = view.to_view[:, :2], view.to_view[:, 2]
    joints_px = truth["joints_px"] @ turn.T + shift
    marks_px = truth["landmarks_px"] @ turn.T + shift
    torso_px = np.linalg.norm(marks_px[:, _SHOULDERS].mean(1) - marks_px[:, _HIPS].mean(1), axis=-1)
    torso_px = np.maximum(torso_px, _LEAST_TORSO * np.ptp(marks_px, axis=1).max(1))
    out = []
    for frame, people, bodies in play(estimator, clip, view):
        rows = np.flatnonzero(truth["frame"] == frame.id)
        last = np.array(frame.size[::-1]) - 1
        for track, joints_m, visibility, score in zip(
            bodies.track, bodies.joints_m, bodies.joint_visibility, bodies.score
        ):
            fitted_px = project(joints_m, estimator.intrinsics(frame))
            off = np.linalg.norm(joints_px[rows] - fitted_px, axis=-1) / torso_px[rows, None]
            row = int(np.median(off, axis=1).argmin())
            true_px = joints_px[rows[row]]
            asked = ((true_px >= 0) & (true_px <= last)).all(1)
            seen = _seen(people[int(track)], frame.size)
            out.append(Joints(visibility, seen, off[row] < CLOSE, asked, float(score)))
    return out


def _seen(person: Person, size: tuple[int, int]) -> np.ndarray:
    return LANDMARK_SHARES @ seen_landmarks([person], picture_sizes([size]))[0]


def calibration(promised: np.ndarray, kept: np.ndarray) -> tuple[float, list[tuple]]:
    """Return the expected calibration error and, of each bin with values, count and both means."""
    bins = np.minimum((promised * BINS).astype(int), BINS - 1)
    rows = [
        (int((bins == k).sum()), float(promised[bins == k].mean()), float(kept[bins == k].mean()))
        for k in np.unique(bins)
    ]
    return sum(n * abs(a - b) for n, a, b in rows) / len(promised), rows


def best_curve(seen: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rising curve at `CALIBRATION`'s visibilities that fits best in least squares."""
    knots = np.array(CALIBRATION[0])
    shares = np.stack([np.interp(seen, knots, unit) for unit in np.eye(len(knots))], 1)
    # As steps upward from 0, which must not be negative.
    steps = np.tril(np.ones((len(knots), len(knots))))
    return np.asarray(steps @ lsq_linear(shares @ steps, right, bounds=(0, 1)).x).clip(0, 1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("renders", type=Path, help="folder of NAME.mp4 with NAME_truth.npz")
    parser.add_argument("--every", type=int, default=1, help="use every N-th view of each clip")
    parser.add_argument("--fit", action="store_true", help="also print the best curve")
    args = parser.parse_args(argv)
    found: list[Joints] = []
    for number, clip in enumerate(sorted(args.renders.glob("*.mp4"))):
        with np.load(clip.with_name(f"{clip.stem}_truth.npz")) as file:
            names = ("frame", "person", "joints_px", "landmarks_px", "image_size")
            truth = {name: file[name] for name in names}
        for name, view in list(views(truth).items())[number % args.every :: args.every]:
            estimator = load_estimator(Config())
            with one_thread():
                joints = measure(estimator, clip, view, truth)
            estimator.close()
            found += joints
            print(f"{clip.stem}, {name}: {len(joints)} bodies", flush=True)
    asked = np.stack([body.asked for body in found])
    right = np.stack([body.right for body in found])
    seen = np.stack([body.seen for body in found])
    visibility = np.stack([body.visibility for body in found])
    some = asked.any(1)
    scores = np.array([body.score for body in found])[some]
    shares = (right & asked)[some].sum(1) / asked[some].sum(1)
    for name, promised, kept in (
        ("joint_visibility", visibility[asked], right[asked].astype(float)),
        ("score", scores, shares),
    ):
        error, rows = calibration(promised, kept)
        print(f"\n{name}: expected calibration error {error:.3f}")
        print("| number | promised | right |\n|--:|--:|--:|")
        for row in rows:
            print("| {} | {:.2f} | {:.2f} |".format(*row))
    if args.fit:
        print("\ncurve:", best_curve(seen[asked], right[asked].astype(float)).round(2).tolist())


if __name__ == "__main__":
    main()
