"""Learn the weights of throw/motion.toml and of throw/estimator.npz from collected throws.

    python -m tools.train_events.learn TRAIN... [--test TEST] [--write]

TRAIN and TEST are folders that `collect` wrote (seeds 0 to 199, and 1000 to 1199). It prints the
weights as lines of the motion's file, and the errors of the measures: fitted, corrected (each throw
by weights learned without it), and if every throw had the mean value; with ``--test``, on throws
that were not used for training, with the coverage of the intervals. ``--write`` writes
throw/estimator.npz.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.events.detect import DetectedEvent, Detector
from pipeline.events.estimate import Estimator, learn, save
from pipeline.events.features import HANDS, Hand
from pipeline.events.find import MOTIONS
from pipeline.events.motion import Motion, load_motion
from pipeline.events.motions.throw.measures import (
    LEAST_FLEXION,
    MEASURES,
    describe,
    hand_speed,
    measure,
    measure_event,
)

RIDGES = (30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
_NEAR, _DOUBTFUL = 1, 2
"""A detection within the first number of frames from the release is right; one within the second is
not used for training."""
_RIDGE = 30.0
_LATE_S = 0.025
"""Timing errors above this have less weight (Huber's loss)."""


@dataclass(frozen=True, eq=False)
class Throw:
    """A collected clip: people by frame, and fits (by offset from the release and track)."""

    name: str
    pts_s: np.ndarray
    people: list[dict[int, Person]]
    fits: dict[tuple[int, int], np.ndarray]
    release: int
    release_s: float
    hand: Hand
    truth_m: np.ndarray
    released_m: np.ndarray
    up: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Throw:
        """Read a file that `collect` wrote."""
        with np.load(path) as file:
            data = {name: file[name] for name in file.files}
        people: list[dict[int, Person]] = [{} for _ in data["pts_s"]]
        for k, (frame, track) in enumerate(zip(data["person_frame"], data["person_track"])):
            people[frame][int(track)] = Person(
                data["person_box_px"][k], 1.0, data["person_landmarks_px"][k],
                data["person_visibility"][k], data["person_world_m"][k],
            )  # fmt: skip
        keys = zip(data["fit_about"].tolist(), data["fit_track"].tolist())
        order = np.argsort(data["truth_frame"], kind="stable")
        return cls(
            path.stem, data["pts_s"], people, dict(zip(keys, data["fit_joints_m"])),
            int(data["truth_release_frame"]), float(data["truth_release_s"]),
            HANDS[int(str(data["truth_hand"]) == "left")],
            data["truth_joints_m"][order], data["truth_release_joints_m"][0],
            data["truth_ground_plane"][:3],
        )  # fmt: skip

    def truth(self) -> dict[str, float]:
        """Return the true measures at the instant of the release; the hand's speed is taken over
        the frames around it."""
        around = slice(self.release - 2, self.release + 2)
        found = measure(self.released_m, self.hand, self.up)
        # With a straight arm, rotation about its axis has no direction to measure.
        if found["elbow_flexion"] < LEAST_FLEXION:
            found["shoulder_external_rotation"] = float("nan")
        speed = hand_speed(self.truth_m[around], self.pts_s[around], self.hand)
        return {**found, "hand_speed": speed}

    def seen(self, motion: Motion) -> list[DetectedEvent]:
        """Return the releases that the detector finds."""
        detector, found = Detector(motion), []
        for number, people in enumerate(self.people):
            # The pictures differ, or the detector would take them for repeated frames.
            image = np.full((1, 1, 3), 64 * (number % 4), np.uint8)
            frame = Frame(number, self.name, 0, float(self.pts_s[number]), image)
            found += detector.see(frame, people, number == 0)
        return found

    def right(self, release: DetectedEvent, within: int = _NEAR) -> bool:
        """Return whether a detection is near the true release and of the right hand."""
        return abs(release.frame_id - self.release) <= within and release.hand == self.hand


def evidence(throws: list[Throw], motion: Motion) -> Motion:
    """Return the motion with weights from a logistic regression over all crossings that its limits
    allow: the ones around the release against all others."""
    # Every crossing is wanted here, also those that the motion's limits would drop.
    eager = replace(motion, least_confidence=1e-12, rest_s=0.0, history_s=0.0)
    rows, right = [], []
    for throw in throws:
        for found in throw.seen(eager):
            # Two frames off is neither right nor wrong, so it is not used.
            if throw.right(found, _DOUBTFUL) and not throw.right(found):
                continue
            rows.append([_held(each, found.features[each.feature]) for each in motion.conditions])
            right.append(throw.right(found))
    x, y = np.array(rows), np.array(right, float)
    centre, scale = np.nanmean(x, 0), np.maximum(np.nanstd(x, 0), 1e-6)
    unit = np.nan_to_num((x - centre) / scale)
    used = np.array([bool(each.weight) for each in motion.conditions])
    bias, weights = _logistic(unit[:, used], y)
    every = np.zeros(len(used))
    every[used] = weights
    conditions = tuple(
        replace(each, centre=float(c), scale=float(s), weight=float(w))
        for each, c, s, w in zip(motion.conditions, centre, scale, every)
    )
    print(f"{len(y)} crossings, {int(y.sum())} of them releases", file=sys.stderr)
    return replace(motion, bias=bias, conditions=conditions)


def timing(throws: list[Throw], motion: Motion) -> Motion:
    """Return the motion with leads from a robust ridge regression (Huber's loss) over its own
    detections, for the conditions that have a lead. ``lead_s`` itself stays: it was chosen with
    real clips too."""
    rows, leads_s = [], []
    for throw in throws:
        for found in throw.seen(motion):
            if found.hand == throw.hand:
                scores = [each.score(found.features[each.feature]) for each in motion.conditions]
                rows.append(scores)
                leads_s.append(found.crossed_s - throw.release_s)
    used = np.array([bool(each.lead_s) for each in motion.conditions])
    x, y = np.array(rows)[:, used], np.array(leads_s)
    z, w = np.c_[np.ones(len(x)), x], np.zeros(x.shape[1] + 1)
    w[0] = np.median(y)
    for _ in range(30):
        # Huber's weights: a few late detections must not move the lead of all.
        share = np.minimum(1.0, _LATE_S / np.maximum(np.abs(y - z @ w), 1e-9))
        ridge = np.diag([0.0, *[_RIDGE] * x.shape[1]])
        w = np.linalg.solve((z * share[:, None]).T @ z + ridge, (z * share[:, None]).T @ y)
    print(f"lead_s without the real clips: {w[0]:.4f}", file=sys.stderr)
    every = np.zeros(len(used))
    every[used] = w[1:]
    conditions = [replace(each, lead_s=float(lead)) for each, lead in zip(motion.conditions, every)]
    return replace(motion, conditions=tuple(conditions))


def _held(condition, value: float) -> float:
    return min(max(value, condition.low), condition.high)


def _logistic(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit a logistic regression with a ridge by Newton's method; both classes have equal weight."""
    z = np.c_[np.ones(len(x)), x]
    ridge = _RIDGE * np.r_[0.0, np.ones(x.shape[1])]
    # Else the class with more crossings would decide.
    share = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    w = np.zeros(z.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-z @ w))
        slope = z.T @ (share * (p - y)) + ridge * w
        w -= np.linalg.solve((z * (share * p * (1 - p))[:, None]).T @ z + np.diag(ridge), slope)
    return float(w[0]), w[1:]


@dataclass(frozen=True, eq=False)
class Table:
    """The throws as the estimator gets them: its inputs (N, F), the fitted measures and the
    truth."""

    inputs: np.ndarray
    fitted: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]
    missed: int
    joints_m: list[np.ndarray]
    hands: list[Hand]


def table(throws: list[Throw], motion: Motion) -> Table:
    """Return the throws that the detector finds, fitted around the frame that it reports."""
    inputs, fitted, truth, joints, hands, missed = [], [], [], [], [], 0
    for throw in throws:
        found = next((release for release in throw.seen(motion) if throw.right(release)), None)
        if found is None or (found.frame_id - throw.release, found.track) not in throw.fits:
            missed += 1
            continue
        fit = throw.fits[found.frame_id - throw.release, found.track]
        times = throw.pts_s[found.frame_id - 2 : found.frame_id + 2].tolist()
        inputs.append(describe(fit, times, throw.hand))
        fitted.append(measure_event(fit, times, throw.hand, 2))
        truth.append(throw.truth())
        joints.append(fit)
        hands.append(throw.hand)

    def columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
        return {name: np.array([row[name] for row in rows]) for name in MEASURES}

    return Table(np.array(inputs), columns(fitted), columns(truth), missed, joints, hands)


def errors_of(name: str, values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the absolute errors of known values; angles differ by at most 180 degrees."""
    difference = values - truth
    if MEASURES[name].unit == "deg":
        difference = (difference + 180) % 360 - 180
    return np.abs(difference[~np.isnan(difference)])


def report(estimator: Estimator, train: Table, left_out: Mapping, test: Table | None) -> None:
    """Print a Markdown table of mean errors, and of the coverage on throws not used for
    training."""
    print("| measure | truth, mean ± sd | fitted | the mean throw | corrected | half | coverage |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    shown = train if test is None else test
    predicted = left_out
    if test is not None:
        values = (test.inputs - estimator.mean) / estimator.spread @ estimator.weights
        predicted = dict(zip(estimator.names, (values + estimator.offset).T))
    sums = []
    for k, name in enumerate(estimator.names):
        truth = shown.truth[name]
        mean = np.full(len(truth), np.nanmean(train.truth[name]))
        columns = (shown.fitted[name], mean, predicted[name])
        errors = [errors_of(name, column, truth) for column in columns]
        inside = float((errors[2] <= estimator.half[k]).mean())
        means = [float(error.mean()) for error in errors]
        if MEASURES[name].unit == "deg":
            sums.append([*means, inside])
        cells = " | ".join(f"{each:.3g}" for each in means)
        spread = f"{np.nanmean(truth):.3g} ± {np.nanstd(truth):.2g}"
        print(f"| {name} | {spread} | {cells} | ±{estimator.half[k]:.3g} | {100 * inside:.0f} % |")
    cells = " | ".join(f"{each:.3g}" for each in np.mean(sums, 0)[:3])
    print(f"| *mean of the angles* | | {cells} | | {100 * np.mean(sums, 0)[3]:.0f} % |")


def lines(motion: Motion) -> str:
    """Return the weights as lines of the motion's file."""
    return "\n".join(
        [
            f"bias = {motion.bias:.2f}",
            *(
                f"{each.feature}: centre = {each.centre:.3g}, scale = {each.scale:.3g}, "
                f"weight = {each.weight:.2f}, lead_s = {each.lead_s:.4f}"
                for each in motion.conditions
            ),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Learn a throw's evidence and corrections.")
    parser.add_argument("train", type=Path, nargs="+")
    parser.add_argument("--test", type=Path)
    parser.add_argument("--write", action="store_true", help="write throw/estimator.npz")
    args = parser.parse_args(argv)

    def read(folder: Path) -> list[Throw]:
        return [Throw.load(path) for path in sorted(folder.glob("*.npz"))]

    motion = load_motion("throw")
    throws = [throw for folder in args.train for throw in read(folder)]
    print(lines(timing(throws, evidence(throws, motion))), file=sys.stderr)
    train = table(throws, motion)
    estimator, left_out = learn(train.inputs, train.truth, RIDGES)
    test = None if args.test is None else table(read(args.test), motion)
    report(estimator, train, left_out, test)
    for name, each in (("train", train), ("test", test)):
        if each is not None:
            print(f"{name}: {len(each.inputs)} throws, {each.missed} not found", file=sys.stderr)
    if args.write:
        save(estimator, MOTIONS / "throw" / "estimator.npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
