"""Measure how two people are followed while one of them hides the other.

    python -m benchmarks.occlusion CLIP CLIP ... [--seeds 1 2 3]
    python -m benchmarks.occlusion --given CLIP TRUTH.npz [--frames 60 99] [--mirrored]

With CLIPs of one person each, the person of one is cut out and moved across the person of another:
each seed draws the pair, the sizes, the way and the speed. The truth is the pose that is found in
each clip alone; for a clip of `samples/make_pitch.py` it is the CLIP_truth.npz beside it. With
``--given``, a clip of two people is taken as it is, with a truth that `app.evaluate.truth` reads.

Printed for the frames in which the people's boxes overlap: PCK (the share of the limbs' landmarks
within 0.2 torso lengths; Andriluka et al. 2014) of the person in front and of the hidden one; the
share of frames in which the hidden one, and in which each of the two, has a body of its own with at
least 0.5 of its limbs close; identity switches from one frame without overlap to the next; bodies
that are neither's; landmark queries and milliseconds a frame, in brackets those of the other
frames.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from app.evaluate.metrics import HIPS, LIMBS, torso_px
from app.evaluate.truth import TruthError, load_truth
from pipeline.capture.open import open_source
from pipeline.core.frame import Frame
from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.blazepose.queries import LandmarkQuery, Query
from pipeline.runtime.window import Windower
from pipeline.tracking.tracker import Tracker
from pipeline.weights import store as weights

_CLOSE = 0.2
"""A landmark is close within this part of the torso's length."""
_OWN = 0.5
"""A body is a person's own with this share of its limbs close."""
_VISIBLE = 0.5
_OVERLAP = 0.2
"""Boxes overlap where they share this part of the smaller one."""
_LINES = 540
"""The height of composites in pixels."""
_COLUMNS = ("frames", "front", "hidden", "hidden own %", "both own %", "switches", "neither's",
            "queries", "ms")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cutout:
    """One person's clip, to be moved over another.

    Attributes:
        images: The pictures (H, W, 3).
        landmarks_px: (F, 33, 2) pixels, NaN where unknown.
        masks: The person's soft masks (H, W).
    """

    images: list[np.ndarray]
    landmarks_px: np.ndarray
    masks: list[np.ndarray]

    def hips_px(self) -> np.ndarray:
        """Return the middle of the hips (F, 2), averaged over nine frames."""
        middle = np.pad(self.landmarks_px[:, HIPS].mean(1), ((4, 4), (0, 0)), "edge")
        return np.stack([np.convolve(x, np.full(9, 1 / 9), "valid") for x in middle.T], 1)

    def size_px(self) -> float:
        """Return the longer side of the box around the landmarks, the median over the frames."""
        low, high = np.nanmin(self.landmarks_px, axis=1), np.nanmax(self.landmarks_px, axis=1)
        return float(np.median((high - low).max(1)))


@dataclass(frozen=True, eq=False)
class Scene:
    """Two people, one of them at times behind the other.

    Attributes:
        name: What it is.
        images: The pictures.
        landmarks_px: The true landmarks (F, 2, 33, 2), NaN where unknown.
        hidden: Which of the two is behind (F,), 0 or 1.
    """

    name: str
    images: list[np.ndarray]
    landmarks_px: np.ndarray
    hidden: np.ndarray


class CountingBlazePose(BlazePose):
    """BlazePose that counts the landmark queries of each frame's picture."""

    def __init__(self, people: int) -> None:
        super().__init__(weights.find("blazepose", None), people)
        self.queries: dict[int, int] = {}

    def answer(self, queries: list[Query]) -> list[Any]:
        for query in queries:
            if isinstance(query, LandmarkQuery):
                self.queries[query.frame.id] = self.queries.get(query.frame.id, 0) + 1
        return super().answer(queries)


def read_images(path: Path) -> list[np.ndarray]:
    """Return a clip's pictures."""
    source = open_source(str(path))
    source.open()
    return [frame.image for frame in source.frames()]


def perceive(
    images: Sequence[np.ndarray], perceiver: BlazePose
) -> Iterator[tuple[dict[int, Person], float]]:
    """Yield each frame's people by track, and its share of the time in seconds."""
    windower, tracker, memory = Windower(max_wait_ms=float("inf"), find_cuts=False), Tracker(), None
    frames = [Frame(k, "scene", 0, k / 30, image) for k, image in enumerate(images)]
    for window in [w for frame in frames for w in windower.add(frame)] + windower.finish():
        begun = time.perf_counter()
        ((people, memory),) = perceiver.perceive_many([window], [memory])
        each_s = (time.perf_counter() - begun) / len(window.frames)
        for seen, frame in zip(people, window.frames):
            yield tracker.assign(seen, frame.pts_s), each_s


def cutout(path: Path) -> Cutout:
    """Return the person of a clip, from the truth beside it or else as BlazePose finds it."""
    images = read_images(path)
    scale = _LINES / images[0].shape[0]
    images = [cv2.resize(i, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for i in images]
    beside = path.with_name(f"{path.stem}_truth.npz")
    if beside.exists():
        truth = load_truth(beside)
        rows = np.array([truth.rows_of(k)[0] for k in range(len(images))])
        masks = [truth.mask(row, images[0].shape[:2]) for row in rows]
        soft = [np.zeros(images[0].shape[:2]) if mask is None else mask for mask in masks]
        points = (truth.landmarks_px[rows] + 0.5) * scale - 0.5
        return Cutout(images, points, [mask.astype(np.float32) for mask in soft])
    kept, landmarks, soft = [], [], []
    for image, (people, _) in zip(images, perceive(images, CountingBlazePose(1))):
        for person in people.values():
            if person.mask is not None:
                kept.append(image)
                unsure = person.visibility[:, None] < _VISIBLE
                landmarks.append(np.where(unsure, np.nan, person.landmarks_px))
                # The hips move the person, so they are always known.
                landmarks[-1][HIPS] = person.landmarks_px[HIPS]
                soft.append(_spread(person.mask, image))
    if not kept:
        raise ValueError(f"{path}: no person is found")
    return Cutout(kept, np.array(landmarks), soft)


def _spread(mask: Mask, image: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(mask.values, mask.to_image, image.shape[1::-1])


def composite(name: str, back: Cutout, front: Cutout, random: np.random.Generator) -> Scene:
    """Return a scene in which ``front`` crosses ``back``, at a random size, speed and side."""
    count = int(random.integers(60, 100))
    across = count * random.uniform(0.5, 0.9)
    scale = random.uniform(0.9, 1.4) * back.size_px() / front.size_px()
    reach = back.size_px() * random.uniform(0.7, 0.9) * random.choice([-1, 1])
    lower = back.size_px() * random.uniform(-0.03, 0.1)
    # Above 1, the person slows down in front of the other.
    power, flip = random.uniform(1.0, 2.0), bool(random.integers(2))
    turn = np.diag([-scale if flip else scale, scale])
    there, here = (
        _there_and_back(int(random.integers(len(c.images))), count, len(c.images))
        for c in (back, front)
    )
    back_hips, front_hips = back.hips_px(), front.hips_px()
    images, landmarks = [], []
    for k, (b, f) in enumerate(zip(there, here)):
        way = np.clip(2 * (k - count / 2) / across, -1, 1)
        target = back_hips[b] + (reach * np.sign(way) * abs(way) ** power, lower)
        to_back = np.column_stack((turn, target - turn @ front_hips[f]))
        images.append(_over(back.images[b], front.images[f], front.masks[f], to_back))
        points = front.landmarks_px[f] @ turn.T + to_back[:, 2]
        landmarks.append((back.landmarks_px[b], points[BLAZEPOSE_33.mirror] if flip else points))
    return Scene(name, images, np.array(landmarks), np.zeros(count, int))


def _there_and_back(first: int, count: int, length: int) -> np.ndarray:
    """Frame numbers (count,) that run through a clip, forth and back."""
    along = np.arange(first, first + count) % max(2 * length - 2, 1)
    return np.minimum(along, 2 * length - 2 - along)


def _over(back: np.ndarray, front: np.ndarray, mask: np.ndarray, to_back: np.ndarray) -> np.ndarray:
    shown, share = (cv2.warpAffine(each, to_back, back.shape[1::-1]) for each in (front, mask))
    # The soft rim holds the other clip's background, so it is made narrow.
    share = np.clip((share[..., None] - 0.4) / 0.3, 0, 1)
    return np.rint(back + share * (shown - back.astype(float))).astype(np.uint8)


def given(clip: Path, truth_file: Path, mirrored: bool) -> Scene:
    """Return a clip of two people with its truth; the farther one of the two is the hidden one."""
    images, truth = read_images(clip), load_truth(truth_file)
    landmarks = np.full((len(images), 2, 33, 2), np.nan)
    depth_m = np.zeros((len(images), 2))
    for row in np.flatnonzero(truth.person < 2):
        at = int(truth.frame[row]), int(truth.person[row])
        landmarks[at] = truth.landmarks_px[row]
        if truth.landmarks_m is not None:
            depth_m[at] = np.nanmean(truth.landmarks_m[row, :, 2])
    if mirrored:
        images = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        landmarks = landmarks[:, :, BLAZEPOSE_33.mirror] * (-1, 1) + (images[0].shape[1] - 1, 0)
    return Scene(clip.stem + " mirrored" * mirrored, images, landmarks, depth_m.argmax(1))


def overlapping(landmarks_px: np.ndarray) -> np.ndarray:
    """Return in which frames (F,) the boxes of two people's landmarks (F, 2, 33, 2) overlap."""
    low, high = (f(landmarks_px, axis=2, initial=s, where=~np.isnan(landmarks_px))
                 for f, s in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
    shared = np.clip(high.min(1) - low.max(1), 0, None).prod(-1)
    return shared > _OVERLAP * (high - low).prod(-1).min(1)


def closeness(people: Sequence[Person], truth_px: np.ndarray, torso: np.ndarray) -> np.ndarray:
    """Return the PCK (2, P) of each body against each of two people (2, 33, 2)."""
    out = np.zeros((2, len(people)))
    for i, (points, unit) in enumerate(zip(truth_px, torso)):
        known = ~np.isnan(points[LIMBS, 0])
        for j, person in enumerate(people):
            distance = np.linalg.norm(person.landmarks_px - points, axis=1)[LIMBS][known]
            out[i, j] = np.mean(distance < _CLOSE * unit) if known.any() else 0.0
    return out


def measure(scene: Scene, first: int, last: int) -> list[float]:
    """Return a scene's figures, as `_COLUMNS` names them, and queries and ms of other frames."""
    perceiver = CountingBlazePose(2)
    torso = np.nanmedian(torso_px(scene.landmarks_px), axis=0)
    counted = overlapping(scene.landmarks_px)
    counted[:first], counted[last + 1 :] = False, False
    if not counted.any():
        raise ValueError(f"{scene.name}: the people do not overlap in these frames")
    rows, tracks, cost = [], [], []
    for k, (people, each_s) in enumerate(perceive(scene.images, perceiver)):
        close = closeness(list(people.values()), scene.landmarks_px[k], torso)
        own, tracked = np.zeros(2), [-1, -1]
        for person, body in zip(*linear_sum_assignment(-close)):
            own[person] = close[person, body]
            if own[person] >= _OWN:
                tracked[person] = list(people)[body]
        hidden = int(scene.hidden[k])
        strangers = int((close.max(0, initial=0.0) < _OWN).sum())
        rows.append(
            (own[1 - hidden], own[hidden], own[hidden] >= _OWN, own.min() >= _OWN, strangers)
        )
        tracks.append(tracked)
        cost.append((perceiver.queries.get(k, 0), 1000 * each_s))
    table, costs = np.array(rows, float)[counted], np.array(cost)
    front, hidden, hidden_own, both_own, _ = table.mean(0)
    # While the poses coincide, it is a matter of chance which body is matched with which person.
    apart = [
        pair for pair, together in zip(tracks, overlapping(scene.landmarks_px)) if not together
    ]
    switches = sum(_changes([pair[person] for pair in apart]) for person in (0, 1))
    here, elsewhere = costs[counted].mean(0), costs[~counted].mean(0)
    return [len(table), front, hidden, 100 * hidden_own, 100 * both_own, switches,
            table[:, 4].sum(), *here, *elsewhere]  # fmt: skip


def _changes(tracks: list[int]) -> int:
    known = [track for track in tracks if track >= 0]
    return sum(a != b for a, b in zip(known, known[1:]))


def scenes(options: argparse.Namespace) -> Iterator[Scene]:
    """Yield the scenes that the command line asks for."""
    for clip, truth in options.given:
        yield given(Path(clip), Path(truth), options.mirrored)
    cutouts = {path: cutout(path) for path in options.clips}
    for seed in options.seeds if cutouts else ():
        random = np.random.default_rng(seed)
        order = random.permutation(len(options.clips))[:2]
        back, front = (options.clips[k] for k in order)
        yield composite(
            f"{seed}: {front.stem} over {back.stem}", cutouts[back], cutouts[front], random
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, 9)))
    parser.add_argument("--given", nargs=2, action="append", default=[], metavar=("CLIP", "TRUTH"))
    parser.add_argument("--frames", nargs=2, type=int, default=(0, 10**9))
    parser.add_argument("--mirrored", action="store_true", help="mirror the given clips")
    options = parser.parse_args()
    if len(options.clips) == 1 or not (options.clips or options.given):
        parser.error("two clips of one person each, or --given")
    try:
        print("| scene | " + " | ".join(_COLUMNS) + " |")
        print("| --- |" + " --: |" * len(_COLUMNS))
        table = []
        for scene in scenes(options):
            table.append(measure(scene, *options.frames))
            print(_line(scene.name, table[-1]), flush=True)
        print(_line("mean", list(np.mean(table, 0))))
    except (OSError, ValueError, TruthError) as error:
        sys.exit(f"occlusion: {error}")


def _line(name: str, values: Sequence[float]) -> str:
    frames, front, hidden, hidden_own, both_own, switches, strangers, *costs = values
    return (
        f"| {name} | {frames:.0f} | {front:.2f} | {hidden:.2f} | {hidden_own:.0f} | {both_own:.0f} "
        f"| {switches:.2g} | {strangers:.3g} | {costs[0]:.1f} ({costs[2]:.1f}) "
        f"| {costs[1]:.0f} ({costs[3]:.0f}) |"
    )


if __name__ == "__main__":
    main()
