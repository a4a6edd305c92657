"""Measure how many of the people in a clip are followed, and whether each keeps one track.

The truth is a file of labels (`load_labels`): boxes of people in some frames of the clip, each with
an identity, and the frames that are empty. A body's box is the box around its mesh in the picture.
Run it on a clip, once for each number of people:

    python -m benchmarks.people CLIP LABELS.json [--people 8 16] [--config PROFILE]

- recall: of the labelled people, the share that a body is matched with. Pairs need an IoU of at
  least 0.4. Pairs of the labelled frame before are kept where they still reach it; the others have
  the largest sum of IoUs (the matching of CLEAR-MOT: Bernardin and Stiefelhagen, 2008).
- precision: of the bodies in labelled frames, the share that is matched. A body without a match
  that reaches the same IoU with an ignored person, or has half of its box in an ignored crowd, is
  not counted.
- switches: how often a labelled person's track is another one than when last matched.
- ghosts: bodies in the frames that are labelled empty.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.build import estimator_settings
from app.config import load_config
from app.evaluate.metrics import match
from benchmarks.renderers import hardware
from pipeline.capture.base import SourceOptions
from pipeline.core.camera import project
from pipeline.core.people import Bodies
from pipeline.core.stats import Snapshot
from pipeline.runtime.stream import stream

LEAST_IOU = 0.4
"""The overlap from which a body is that of a labelled person."""
CROWD_SHARE = 0.5
"""The share of a body's box from which it belongs to an ignored crowd."""


@dataclass(frozen=True)
class Label:
    """A labelled person in one frame.

    Attributes:
        id: The person, the same in all frames.
        box_px: (4,) x0, y0, x1, y1 around the whole person within the picture, hidden parts too.
        ignore: The person is hardly visible or too small, and counts neither way.
        crowd: The box is an area of such people and not one person.
    """

    id: str
    box_px: np.ndarray
    ignore: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class Labels:
    """The labels of a clip.

    Attributes:
        frames: The people of each labelled frame, by its index.
        empty: The frames without people.
    """

    frames: Mapping[int, tuple[Label, ...]]
    empty: frozenset[int]


def load_labels(path: Path) -> Labels:
    """Return the labels of a file.

    It is JSON: ``{"frames": {"12": [{"id": "a", "box": [x0, y0, x1, y1]}, ...]}, "empty": [[0,
    58], ...]}``. A label may have ``"ignore": true`` and ``"crowd": true``; ``empty`` has the first
    and the last frame of each range.
    """
    content = json.loads(path.read_text())
    frames = {
        int(frame): tuple(
            Label(
                one["id"], np.array(one["box"], float), one.get("ignore", False),
                one.get("crowd", False),
            )
            for one in people
        )
        for frame, people in content.get("frames", {}).items()
    }  # fmt: skip
    ranges = [range(first, last + 1) for first, last in content.get("empty", [])]
    return Labels(frames, frozenset(frame for one in ranges for frame in one))


@dataclass
class Score:
    """What the bodies of a clip's frames amount to; `add` takes one frame after another.

    Attributes:
        labels: The truth.
        right: Labelled people with a body.
        missed: Labelled people without one.
        wrong: Bodies in labelled frames without a labelled person.
        switches: How often a person's track changed.
        ghosts: Bodies in empty frames.
        bodies: The number of bodies of each frame.
    """

    labels: Labels
    right: int = 0
    missed: int = 0
    wrong: int = 0
    switches: int = 0
    ghosts: int = 0
    bodies: list[int] = field(default_factory=list)
    _track_of: dict[str, int] = field(default_factory=dict)

    @property
    def recall(self) -> float:
        """The share of the labelled people who have a body; NaN without labels."""
        return _share(self.right, self.right + self.missed)

    @property
    def precision(self) -> float:
        """The share of the counted bodies that are a labelled person's; NaN without bodies."""
        return _share(self.right, self.right + self.wrong)

    def add(self, frame: int, tracks: Sequence[int], boxes_px: np.ndarray) -> None:
        """Count a frame's bodies.

        Args:
            frame: The frame's index.
            tracks: The track of each body.
            boxes_px: Their boxes (P, 4), x0, y0, x1, y1.
        """
        self.bodies.append(len(tracks))
        if frame in self.labels.empty:
            self.ghosts += len(tracks)
        if frame not in self.labels.frames:
            return
        labels = self.labels.frames[frame]
        people = [label for label in labels if not label.ignore]
        ignored = [label for label in labels if label.ignore]
        pairs = self._match(people, tracks, boxes_px)
        for person, body in pairs:
            known = self._track_of.setdefault(people[person].id, tracks[body])
            self.switches += known != tracks[body]
            self._track_of[people[person].id] = tracks[body]
        rest = np.delete(boxes_px, [body for _, body in pairs], axis=0)
        self.right += len(pairs)
        self.missed += len(people) - len(pairs)
        self.wrong += sum(not _is_ignored(box, ignored) for box in rest)

    def _match(
        self, people: Sequence[Label], tracks: Sequence[int], boxes_px: np.ndarray
    ) -> list[tuple[int, int]]:
        """Pairs of a person and a body: those of the frame before where they still overlap, and
        the best of the others."""
        overlap = ious(np.array([p.box_px for p in people]).reshape(-1, 4), boxes_px)
        kept = [
            (n, p)
            for n, person in enumerate(people)
            for p, track in enumerate(tracks)
            if self._track_of.get(person.id) == track and overlap[n, p] >= LEAST_IOU
        ]
        free = overlap.copy()
        for n, p in kept:
            free[n, :] = free[:, p] = 0.0
        # The limit is exclusive there and inclusive here.
        return kept + match(1 - free, np.nextafter(1 - LEAST_IOU, 1))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _is_ignored(box_px: np.ndarray, ignored: Sequence[Label]) -> bool:
    area = np.prod(box_px[2:] - box_px[:2])
    for label in ignored:
        share = _common(label.box_px[None], box_px[None])[0, 0] / max(area, 1e-9)
        overlap = ious(label.box_px[None], box_px[None])[0, 0]
        if share >= CROWD_SHARE if label.crowd else overlap >= LEAST_IOU:
            return True
    return False


def _common(ours_px: np.ndarray, theirs_px: np.ndarray) -> np.ndarray:
    """The areas (N, P) that boxes (N, 4) share with boxes (P, 4)."""
    low = np.maximum(ours_px[:, None, :2], theirs_px[None, :, :2])
    high = np.minimum(ours_px[:, None, 2:], theirs_px[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def ious(ours_px: np.ndarray, theirs_px: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N, P) of boxes (N, 4) with boxes (P, 4)."""
    common = _common(ours_px, theirs_px)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (ours_px, theirs_px)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def mesh_boxes(bodies: Bodies, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the boxes (P, 4) px around bodies' meshes in a picture of ``size`` (height, width),
    cut at its edges."""
    if not len(bodies):
        return np.zeros((0, 4))
    points = project(bodies.vertices_m, intrinsics)
    corners = np.concatenate([points.min(1), points.max(1)], axis=1)
    return np.clip(corners, 0, [size[1], size[0], size[1], size[0]])


def measure(clip: str, labels: Labels, people: int, profile: str) -> tuple[Score, Snapshot]:
    """Return the score of a clip that is run with a profile and a number of people, and the times
    of the run."""
    settings = estimator_settings(load_config(profile, {"perceive.people": people}))
    score = Score(labels)
    with stream(clip, SourceOptions(live=False), **settings) as run:
        for frame, bodies in run:
            boxes_px = mesh_boxes(bodies, run.estimator.intrinsics(frame), frame.size)
            score.add(frame.id, bodies.track.tolist(), boxes_px)
        times = run.stats.snapshot()
        run.estimator.close()
    return score, times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.people",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clip")
    parser.add_argument("labels", type=Path)
    parser.add_argument("--people", type=int, nargs="+", default=[8])
    parser.add_argument("--config", default="default")
    options = parser.parse_args(arguments)
    labels = load_labels(options.labels)
    print(hardware())
    print(
        f"{Path(options.clip).name}: {len(labels.frames)} labelled frames, "
        f"{sum(not one.ignore for people in labels.frames.values() for one in people)} people in "
        f"them, {len(labels.empty)} empty frames"
    )
    print("people  recall  precision  switches  ghosts  a frame  perceive ms p50/p95  fit p50/p95")
    for people in options.people:
        score, times = measure(options.clip, labels, people, options.config)
        stages = [
            f"{times.stages_ms[name].p50_ms:.1f} / {times.stages_ms[name].p95_ms:.1f}"
            for name in ("perceive", "fit")
        ]
        print(
            f"{people:6} {score.recall:7.2f} {score.precision:10.2f} {score.switches:9}"
            f" {score.ghosts:7} {np.median(score.bodies):8g} {stages[0]:>20} {stages[1]:>12}",
            flush=True,
        )


if __name__ == "__main__":
    main()
