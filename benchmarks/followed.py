"""Measure whether the first person of rendered clips is followed, and at how many queries.

    python samples/make_pitch.py --floor renders --count 8 --first-seed 2000
    python -m benchmarks.followed renders [--people 8]

It takes every NAME.mp4 with NAME_truth.npz of the folder and perceives it with the default settings
(no fit). Clips without a truth count for the queries alone. A frame's track lies on the person
where the median distance of its landmarks from the true ones is below a half of the person's usual
torso, and no other person of the truth is nearer to it.

- followed: the share of frames with such a track; near: the same with a whole torso.
- tracks: how many different tracks these were; 1 is right.
- false: tracks, in a hundred frames, that lie within a torso of no person of the truth.
- landmark and detector: queries a person and frame, and the detectors' views a window.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.build import estimator_settings
from app.config import load_config
from app.evaluate.metrics import distances
from app.evaluate.truth import Truth, load_truth
from pipeline.capture.open import open_source
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.blazepose.queries import DetectionQuery, LandmarkQuery, Query
from pipeline.runtime.make import make_estimator
from pipeline.runtime.window import Windower

FOLLOWED, NEAR = 0.5, 1.0
"""The most median landmark distances in torsos of a track that follows, and that is near."""


@dataclass
class Count:
    """What was asked of a perceiver whose queries are counted."""

    landmark: int = 0
    views: int = 0

    def watch(self, perceiver: BlazePose) -> None:
        """Count the queries of a perceiver from now on."""
        answer = perceiver.answer

        def counted(queries: list[Query]) -> list[Any]:
            self.landmark += sum(isinstance(query, LandmarkQuery) for query in queries)
            for query in queries:
                if isinstance(query, DetectionQuery):
                    self.views += len(query.views) + len(query.second_views)
            return answer(queries)

        perceiver.answer = counted  # type: ignore[method-assign]


@dataclass
class Score:
    """Sums over the frames of clips; `add` takes one frame after another."""

    frames: int = 0
    followed: int = 0
    near: int = 0
    false: int = 0
    people: int = 0
    windows: int = 0
    tracks: set[int] = field(default_factory=set)
    lost: list[int] = field(default_factory=list)

    def add(self, tracks: Sequence[int], found_px: np.ndarray, truth: Truth, frame: int) -> None:
        """Count a frame.

        Args:
            tracks: The track of each person found.
            found_px: Their landmarks (P, 33, 2).
            truth: The truth of the clip.
            frame: The frame's index.
        """
        rows = truth.rows_of(frame)
        apart = distances(found_px, truth.landmarks_px[rows], truth.torso_px[rows])
        self.frames += 1
        nearest = apart.argmin(0) if len(tracks) else np.zeros(0, int)
        self.false += int((apart.min(0, initial=np.inf) > NEAR).sum()) if len(tracks) else 0
        own = [(apart[0, k], track) for k, track in enumerate(tracks) if nearest[k] == 0]
        distance, track = min(own, default=(np.inf, -1))
        self.near += distance < NEAR
        if distance < FOLLOWED:
            self.followed += 1
            self.tracks.add(track)
        else:
            self.lost.append(frame)


def measure(estimator: Any, clip: Path, count: Count) -> tuple[Score, Count]:
    """Return a clip's score, and what its perceiver was asked."""
    path = clip.with_name(f"{clip.stem}_truth.npz")
    truth = load_truth(path) if path.exists() else None
    before = Count(count.landmark, count.views)
    score, windower, state = Score(), Windower(max_wait_ms=float("inf")), estimator.begin()
    source = open_source(str(clip))
    source.open()
    windows = [window for frame in source.frames() for window in windower.add(frame)]
    for window in windows + windower.finish():
        score.windows += 1
        detected = estimator.perceive([window], [state])[0]
        for frame, people in zip(window.frames, detected.people):
            score.people += len(people)
            if truth is not None:
                points = [person.landmarks_px for person in people.values()]
                score.add(list(people), np.reshape(points, (-1, 33, 2)), truth, frame.id)
    source.close()
    return score, Count(count.landmark - before.landmark, count.views - before.views)


def row(name: str, score: Score, asked: Count, clips: int = 1) -> str:
    """Return a line of the table."""
    frames = max(score.frames, 1)
    return (
        f"{name:24} {score.followed / frames:8.3f} {score.near / frames:6.3f} "
        f"{len(score.tracks) / clips:7.3g} {100 * score.false / frames:6.1f} "
        f"{asked.landmark / max(score.people, 1):9.2f} {asked.views / max(score.windows, 1):9.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.followed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--lost", action="store_true", help="name the frames without such a track")
    options = parser.parse_args(arguments)
    settings = estimator_settings(load_config("default", {"perceive.people": options.people}))
    estimator: Any = make_estimator(**settings)
    count = Count()
    count.watch(estimator.perceiver)
    print(f"{'clip':24} followed   near  tracks  false  landmark  detector")
    total, asked, clips = Score(), Count(), 0
    for clip in sorted(options.folder.glob("*.mp4")):
        score, queries = measure(estimator, clip, count)
        print(row(clip.stem, score, queries), flush=True)
        if options.lost and score.lost:
            print("  lost in", score.lost)
        clips += 1
        total.tracks |= {1000 * clips + track for track in score.tracks}
        for name in ("frames", "followed", "near", "false", "people", "windows"):
            setattr(total, name, getattr(total, name) + getattr(score, name))
        asked.landmark, asked.views = asked.landmark + queries.landmark, asked.views + queries.views
    print(row("all", total, asked, max(clips, 1)))
    estimator.close()


if __name__ == "__main__":
    main()
