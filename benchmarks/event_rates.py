"""Measure how well releases are detected at other frame rates, and at uneven ones.

It takes throws rendered at 120 frames a second (samples/make_pitch.py --throws OUT --fps 120) and
leaves out frames. Run it:

    python -m benchmarks.event_rates OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from pipeline.capture.open import open_source
from pipeline.core.frame import Frame, Window
from pipeline.events.detect import DetectedEvent, Detector
from pipeline.events.motion import load_motion
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.make import make_estimator

RATE = 120
RIGHT_S = 1.01 / 30
"""A release is right within one frame of a 30 Hz video."""


def rates(count: int, release: int) -> dict[str, Sequence[int]]:
    """Return which of a clip's frames are used, by the rate's name. Even rates include the frame of
    the release."""
    # Seeded by the clip, so that a run can be repeated.
    uneven = np.cumsum(np.random.default_rng(release).integers(1, 6, count))
    return {
        "120": range(count),
        "60": range(release % 2, count, 2),
        "30": range(release % 4, count, 4),
        "24 to 120": [int(k) for k in uneven if k < count],
    }


def releases(estimator: KeypointEstimator, frames: Sequence[Frame]) -> list[DetectedEvent]:
    """Return the releases that are detected in frames."""
    state, detector, found = estimator.begin(), Detector(load_motion()), []
    for k, frame in enumerate(frames):
        people = estimator.perceive([Window((frame,), 0, reset=k == 0)], [state])[0].people[0]
        found += detector.see(frame, people, k == 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("renders", type=Path)
    args = parser.parse_args()
    estimator = make_estimator(people=1, device="cpu")
    errors: dict[str, list[str]] = {}
    counts: dict[str, list[int]] = {}
    clips = sorted(args.renders.glob("*_truth.npz"))
    for path in clips:
        with np.load(path) as truth:
            release, hand, fps = int(truth["release_frame"]), str(truth["hand"]), int(truth["fps"])
            release_s = float(truth["release_s"])
        # Other rates would leave other frames out than the names of the rows say.
        if fps != RATE:
            raise SystemExit(f"{path}: rendered at {fps} a second, not {RATE}")
        name = path.name.removesuffix("_truth.npz")
        source = open_source(str(path.with_name(f"{name}.mp4")))
        source.open()
        frames = list(source.frames())
        source.close()
        for rate, chosen in rates(len(frames), release).items():
            found = releases(estimator, [frames[k] for k in chosen])
            # Frame ids are the whole clip's, also where frames were left out.
            late_s = [seen.frame_id / RATE - release_s for seen in found]
            right = [abs(s) <= RIGHT_S and seen.hand == hand for s, seen in zip(late_s, found)]
            exactly_one = right == [True]
            counts.setdefault(rate, [0, 0, 0])[0 if exactly_one else 1 if found else 2] += 1
            if not exactly_one:
                what = ", ".join(
                    f"{1e3 * s:+.0f} ms {seen.hand}, confidence {seen.confidence:.2f}"
                    for s, seen in zip(late_s, found)
                )
                errors.setdefault(rate, []).append(f"{name}: {what or 'not found'}")
    estimator.close()
    for rate, (good, wrong, missed) in counts.items():
        print(f"{rate:10} of {len(clips)}: {good} right, {wrong} wrong, {missed} not found")
        for line in errors.get(rate, []):
            print("  ", line)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    main()
