"""BlazePose for several people: detect on key frames, track ROIs on every frame.

`BlazePose.embed` runs the detector on the key frame and compares its detections with the people
that are tracked. `BlazePose.decode` runs the landmark model in each ROI of each frame. It begins
with the key frame, where detections are fresh, and goes outward, because each frame's ROIs come
from the landmarks of its neighbour: people move little from one frame to the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.frame import WINDOW_FRAMES, Window
from pipeline.core.people import Person
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.perception.base import Perceiver
from pipeline.perception.blazepose import detector, landmarks
from pipeline.perception.blazepose.litert import load_model
from pipeline.perception.blazepose.queries import (
    DetectionQuery,
    LandmarkQuery,
    PersonRoi,
    Plan,
    PrefetchHint,
    Query,
    gather,
    run_plan,
)
from pipeline.perception.blazepose.resample import Box, crop, letterbox, painted_over, parts, tiles
from pipeline.perception.blazepose.roi import Roi, same_place
from pipeline.perception.blazepose.roi_tracking import confirm_candidates, track_rois

_TRACKED_ADVANTAGE = 1.3
"""With all places taken, a new person replaces a tracked one only when larger by this factor."""
_SPARE_CANDIDATES = 2
"""Candidates that are checked beyond the free places, since some turn out not to be people."""
_EAGER_PASSES = 4
"""First detector passes, which search the picture and all large tiles: one frame may be blurred."""


@dataclass(frozen=True)
class Memory:
    """What BlazePose remembers of a source between windows.

    Attributes:
        rois: Where to find the tracked people, the longest tracked first.
        next_id: The id of the next new person.
        turn: Detector passes so far; it selects the tile of the next one.
        refused: Places where the detector was wrong lately; ``frames_missed`` counts the passes for
            which to leave such a place alone.
        since_detection: Frames since the last detector pass.
        unfollowed: People who were seen and have no place.
    """

    rois: tuple[Roi, ...] = ()
    next_id: int = 0
    turn: int = 0
    refused: tuple[Roi, ...] = ()
    since_detection: int = WINDOW_FRAMES
    unfollowed: int = 0


@dataclass(frozen=True)
class Embedding:
    """What `BlazePose.embed` returns: plain values, which can be kept, compared and sent.

    Attributes:
        tracked: Where to find the tracked people.
        candidates: Where there may be new people, the largest first.
        refused: As in the next memory.
        next_id: As in the next memory, but for new people of this window.
        turn: As in the next memory.
        since_detection: As in the next memory, but for this window's own frames.
    """

    tracked: tuple[Roi, ...]
    candidates: tuple[Roi, ...]
    refused: tuple[Roi, ...]
    next_id: int
    turn: int
    since_detection: int = 0


class BlazePose(Perceiver):
    """The default perceiver; LiteRT on the CPU. It belongs to one thread at a time.

    Args:
        files: The two model files by name.
        max_people: The most people to track, the largest ones.
        threads: LiteRT's threads.
        areas: Where people are detected and followed.

    Raises:
        ValueError: ``max_people`` is below 1, or a file is not the expected model.
        RuntimeError: LiteRT is not installed.
    """

    name = "blazepose"

    def __init__(
        self,
        files: Mapping[str, Path],
        max_people: int = 8,
        threads: int = 2,
        areas: Areas = EVERYWHERE,
    ) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is tracked, not {max_people}")
        threads = max(1, min(threads, os.cpu_count() or 1))
        self.max_people, self.areas = max_people, areas
        self._anchors = detector.make_anchors()
        self._detect = load_model(files["pose_detection.tflite"], detector.OUTPUTS, threads)
        self._landmark = load_model(files["pose_landmark_full.tflite"], landmarks.OUTPUTS, threads)

    def close(self) -> None:
        """Release the models; the perceiver cannot be used afterwards."""
        self.__dict__.pop("_detect", None)
        self.__dict__.pop("_landmark", None)

    def embed(self, window: Window, memory: Memory | None) -> Embedding:
        """Detect people on the key frame.

        A detection that overlaps a tracked ROI only refreshes its score. One that overlaps an ROI
        whose person was lost moves it there. Any other becomes a candidate, which `decode` checks.
        Windows of fewer than four frames share one detector pass.

        Args:
            window: One to four frames of a source.
            memory: What `decode` returned for the window before; None for the first one.
        """
        return run_plan(self._embed(window, memory), self._answer)

    def decode(
        self, embedding: Embedding, window: Window
    ) -> tuple[list[tuple[Person, ...]], Memory]:
        """Return the people of every frame, and the memory for the next window.

        Args:
            embedding: What `embed` returned for this window.
            window: The same window.

        Returns:
            The people of each frame, in order; ``Person.roi`` is the id of the track. And the
            memory, to pass to the next `embed`.
        """
        return run_plan(self._decode(embedding, window), self._answer)

    def unfollowed(self, memory: Memory) -> int:
        """Return how many people of the last window have no place."""
        return memory.unfollowed

    def _embed(self, window: Window, memory: Memory | None) -> Plan[Embedding]:
        fresh = memory is None or window.reset
        before = Memory() if memory is None or window.reset else memory
        if before.since_detection < WINDOW_FRAMES:
            yield [PrefetchHint(window, tuple(r for r in before.rois if not r.frames_missed))]
            return Embedding(
                before.rois, (), before.refused, before.next_id, before.turn, before.since_detection
            )  # fmt: skip
        size = window.key_frame.size
        views = self._views(size, before, fresh)
        # A pass over the whole picture scores every tracked person anew. A pass over a part or a
        # tile alone does not reach all of them, so they keep their scores.
        over_all = set(views) >= set(parts(*size))
        tracked = [replace(r, score=0.0) if over_all else r for r in before.rois]
        refused = [
            replace(r, frames_missed=r.frames_missed - 1)
            for r in before.refused
            if r.frames_missed > 1
        ]
        candidates = []
        # The hint goes out with the detection, which refreshes the scores of these ROIs but moves
        # none.
        hint = PrefetchHint(window, tuple(r for r in tracked if not r.frames_missed))
        detections, _ = yield [DetectionQuery(window.key_frame, tuple(views)), hint]
        for roi in self._inside(detections, size):
            # Lost people first: only their ROIs may be moved by a detection.
            match = same_place(roi, [r for r in tracked if r.frames_missed])
            if match is not None:
                lost = [k for k, r in enumerate(tracked) if r.frames_missed][match]
                tracked[lost] = replace(
                    tracked[lost], x=roi.x, y=roi.y, side=roi.side, angle=roi.angle,
                    score=roi.score,
                )  # fmt: skip
            elif (match := same_place(roi, tracked)) is not None:
                tracked[match] = replace(tracked[match], score=roi.score)
            elif same_place(roi, refused) is None:
                candidates.append(roi)
        chosen = self._candidates_to_check(candidates, tracked, fresh)
        return Embedding(
            tuple(tracked), tuple(chosen), tuple(refused), before.next_id, before.turn + 1
        )

    def _decode(
        self, embedding: Embedding, window: Window
    ) -> Plan[tuple[list[tuple[Person, ...]], Memory]]:
        count, key = len(window.frames), window.key
        # Tracked people before candidates: a candidate that is a part of one of them is refused.
        present, tracked = yield from track_rois(window.key_frame, embedding.tracked)
        new, refused = yield from confirm_candidates(
            window.key_frame, embedding.candidates, embedding.next_id, present
        )
        size = window.key_frame.size
        rois = self._largest(
            self._inside(tracked, size), self._inside([roi for _, roi in new], size)
        )
        ids = {roi.id for roi in rois}
        people = {key: tuple(p for p in (*present, *(p for p, _ in new)) if p.roi in ids)}
        # Outward from the key frame, so that every ROI is as few frames as possible from those that
        # detections confirmed. Both directions run in step: a GPU answers them in one batch.
        (after, last_rois), (before, _) = yield from gather(
            [
                self._track_frames(window, range(key + 1, count), rois),
                self._track_frames(window, range(key - 1, -1, -1), rois),
            ]
        )
        people |= after | before
        # Only the forward direction leads to the next window.
        memory = Memory(
            last_rois,
            embedding.next_id + len(new),
            embedding.turn,
            (*embedding.refused, *refused),
            embedding.since_detection + count,
        )
        return [people[t] for t in range(count)], memory

    @staticmethod
    def _track_frames(
        window: Window, times: Iterable[int], rois: tuple[Roi, ...]
    ) -> Plan[tuple[dict[int, tuple[Person, ...]], tuple[Roi, ...]]]:
        """Track frame by frame; the people in each, and the ROIs after the last."""
        people = {}
        for t in times:
            people[t], rois = yield from track_rois(window.frames[t], rois)
        return people, rois

    def _answer(self, queries: list[Query]) -> list[Any]:
        return [
            self._person_in(query)
            if isinstance(query, LandmarkQuery)
            else self._detections(query.frame.image, query.views)
            if isinstance(query, DetectionQuery)
            else None
            for query in queries
        ]

    def _person_in(self, query: LandmarkQuery) -> PersonRoi | None:
        view = crop(query.frame.image, query.roi, landmarks.INPUT)
        if query.without is not None and query.without.mask is not None:
            view = painted_over(view, query.roi, query.without.mask)
        outputs = self._landmark(np.ascontiguousarray(view[:, ::-1]) if query.mirrored else view)
        # An empty ROI is answered before its heatmaps and its mask are read.
        if landmarks.presence_of(outputs) < query.min_presence:
            return None
        return landmarks.read_person(query.roi, landmarks.reading_of(outputs), query.mirrored)

    def _views(self, size: tuple[int, int], memory: Memory, fresh: bool) -> list[Box]:
        """The parts of a picture to run the detector on.

        All of them where nothing is known, and the picture with all large tiles soon after. Later
        the whole picture and, while there are free places, one tile in turn; every other window the
        tile alone, where every tracked person is present. An elongated picture has parts instead of
        the whole, and later only one of them in turn.
        """
        height, width = size
        wholes = parts(height, width)
        levels = tiles(height, width, detector.INPUT)
        if fresh:
            return [*wholes, *(tile for level in levels for tile in level)]
        if memory.turn >= _EAGER_PASSES:
            # Two turns for each part: every other turn may belong to a tile alone.
            wholes = [wholes[memory.turn // 2 % len(wholes)]]
        if len(memory.rois) >= self.max_people or not levels:
            return wholes
        if memory.turn < _EAGER_PASSES:
            return [*wholes, *levels[0]]
        # Large tiles get two turns of three: nearer people matter more and move out of them sooner.
        small = memory.turn % 3 == 2
        level = levels[-1] if small else levels[0]
        # Each level counts its own turns, so that no tile is left out.
        turn = memory.turn // 3 if small else memory.turn - memory.turn // 3
        tile = level[turn % len(level)]
        all_present = bool(memory.rois) and not any(roi.frames_missed for roi in memory.rois)
        return [tile] if all_present and memory.turn % 2 else [*wholes, tile]

    def _candidates_to_check(
        self, candidates: list[Roi], tracked: Sequence[Roi], fresh: bool
    ) -> list[Roi]:
        """The largest candidates, enough to fill every free place.

        With no place free, those that are large enough to replace a tracked person.
        """
        free = self.max_people - len(tracked)
        min_side = 0.0 if free > 0 else _TRACKED_ADVANTAGE * min(roi.side for roi in tracked)
        large = sorted((r for r in candidates if r.side > min_side), key=lambda r: -r.side)
        return large[: max(free, 0) + _SPARE_CANDIDATES * (2 if fresh else 1)]

    def _detections(self, image: np.ndarray, views: Iterable[Box]) -> list[Roi]:
        """ROIs of the detections in parts of a picture, best score first, each place once."""
        rois = []
        for view in views:
            tensor, to_image = letterbox(image, view, detector.INPUT)
            raw, scores = self._detect(tensor)
            boxes = detector.decode_boxes(raw[0], scores[0, :, 0], self._anchors)
            rois += detector.rois_of(detector.suppress(boxes), to_image)
        return self._distinct(rois)

    @staticmethod
    def _distinct(rois: list[Roi]) -> list[Roi]:
        """Each place once, best score first, without ROIs too small to read."""
        distinct: list[Roi] = []
        # Views overlap, so a person may be detected in several of them.
        for roi in sorted(rois, key=lambda roi: -roi.score):
            if same_place(roi, distinct) is None and roi.side > 16:
                distinct.append(roi)
        return distinct

    def _inside(self, rois: Iterable[Roi], size: tuple[int, int]) -> list[Roi]:
        return [roi for roi in rois if self.areas.keeps(roi.x, roi.y, size)]

    def _largest(self, tracked: Sequence[Roi], new: Sequence[Roi]) -> tuple[Roi, ...]:
        """The largest people, tracked ones at an advantage and first."""
        sides = [r.side * _TRACKED_ADVANTAGE for r in tracked] + [r.side for r in new]
        chosen = sorted(np.argsort(sides)[::-1][: self.max_people])
        return tuple([*tracked, *new][i] for i in chosen)
