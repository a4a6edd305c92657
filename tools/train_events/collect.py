"""Run the pipeline on rendered throws and write its results: people frame by frame, and fits around
the release.

    python -m tools.train_events.collect RENDERS OUT [--jobs 2]

It turns every NAME.mp4 with NAME_truth.npz of RENDERS (`samples/make_pitch.py --throws`) into
OUT/NAME.npz; existing files stay. A clip takes about three seconds on a CPU core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pipeline.capture.open import open_source
from pipeline.core.frame import Frame, Window
from pipeline.events.estimate import FRAMES
from pipeline.runtime.estimator import DetectedWindow
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.make import make_estimator

ABOUT = (-1, 0, 1)
"""Frames about the true release whose windows are fitted: the detector may be one off."""
_PERSON = ("landmarks_px", "visibility", "world_m", "box_px")


class Watched:
    """A clip whose frames are perceived one by one and fitted by four, like a stream with event
    detection."""

    def __init__(self, estimator: KeypointEstimator, frames: list[Frame]) -> None:
        self._estimator, self._frames = estimator, frames
        self._state = estimator.begin()
        self.people: list[dict] = []
        self._waiting: list[DetectedWindow] = []

    def perceive(self, number: int) -> None:
        window = Window((self._frames[number],), 0, reset=number == 0)
        one = self._estimator.perceive([window], [self._state])[0]
        self.people.append(one.people[0])
        self._waiting.append(one)
        if len(self._waiting) == FRAMES:
            frames = tuple(part.window.frames[0] for part in self._waiting)
            together = Window(frames, 0, self._waiting[0].window.reset)
            people = tuple(part.people[0] for part in self._waiting)
            self._estimator.fit([DetectedWindow(together, people)], [self._state])
            self._waiting.clear()

    def event(self, release: int, track: int) -> np.ndarray | None:
        """Return a person's joints (4, 24, 3), fitted around a release; None if the person is not
        in all four frames."""
        ids = range(release - 2, release + 2)
        if ids.start < 0 or not all(track in self.people[k] for k in ids):
            return None
        window = Window(tuple(self._frames[k] for k in ids), 2)
        perceived = DetectedWindow(window, tuple(self.people[k] for k in ids))
        before = self.people[: ids.start]
        fitted = self._estimator.fit_event(perceived, before, track, self._state)
        return np.stack([bodies.joints_m[0] for _, bodies in fitted])


def collect(clip: Path, out: Path, estimator: KeypointEstimator) -> None:
    """Process one clip and write its file."""
    with np.load(clip.with_name(f"{clip.stem}_truth.npz")) as truth:
        kept = {
            name: truth[name]
            for name in (
                "joints_m",
                "frame",
                "ground_plane",
                "fps",
                "release_frame",
                "release_s",
                "release_joints_m",
                "hand",
                "view_deg",
            )
        }
    source = open_source(str(clip))
    source.open()
    frames = list(source.frames())
    source.close()
    release = int(kept["release_frame"])
    watched = Watched(estimator, frames)
    fits, about, tracks = [], [], []
    for number in range(len(frames)):
        watched.perceive(number)
        # One frame late, because an event's window ends with the frame after it.
        at = number - 1 - release
        if at in ABOUT:
            for track in watched.people[number - 1]:
                joints = watched.event(number - 1, track)
                if joints is not None:
                    fits.append(joints)
                    about.append(at)
                    tracks.append(track)
    rows = [(k, t, p) for k, people in enumerate(watched.people) for t, p in people.items()]
    columns: dict[str, Any] = {
        f"person_{name}": np.array([getattr(row[2], name) for row in rows]) for name in _PERSON
    }
    columns |= {f"truth_{name}": value for name, value in kept.items()}
    np.savez_compressed(
        out,
        pts_s=np.array([frame.pts_s for frame in frames]),
        person_frame=np.array([row[0] for row in rows]),
        person_track=np.array([row[1] for row in rows]),
        fit_joints_m=np.array(fits).reshape(-1, FRAMES, 24, 3),
        fit_about=np.array(about, int),
        fit_track=np.array(tracks, int),
        **columns,
    )


def _one(out: Path, clip: Path) -> str:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # One for each process, not one for each clip.
    if not hasattr(_one, "estimator"):
        _one.estimator = make_estimator(people=2, device="cpu")  # type: ignore[attr-defined]
    collect(clip, out / f"{clip.stem}.npz", _one.estimator)  # type: ignore[attr-defined]
    return clip.stem


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What the pipeline makes of rendered throws.")
    parser.add_argument("renders", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    clips = [
        clip
        for clip in sorted(args.renders.glob("*.mp4"))
        if clip.with_name(f"{clip.stem}_truth.npz").exists()
        and not (args.out / f"{clip.stem}.npz").exists()
    ]
    # Spawned, because torch's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(max(1, args.jobs)) as pool:
        for name in pool.imap_unordered(partial(_one, args.out), clips):
            print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
