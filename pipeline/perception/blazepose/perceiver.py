"""BlazePose for several people: detect on key frames, track ROIs on every frame.

`BlazePose.embed` runs the detectors on the key frame and compares their detections with the people
that are tracked. `BlazePose.decode` queries the landmark model for each person in all frames at
once, where the window before left the person: people move little in four frames. Then it goes from
the key frame outward and asks again only where an answer is far off its ROI or in doubt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from pipeline.core.frame import WINDOW_FRAMES, Window
from pipeline.core.people import Person
from pipeline.core.records import replaced
from pipeline.perception.areas import EVERYWHERE, Areas
from pipeline.perception.base import Perceiver
from pipeline.perception.blazepose import detector, landmarks
from pipeline.perception.blazepose.followed import Followed, ScoreNeeded, without_score
from pipeline.perception.blazepose.litert import Model, load_model
from pipeline.perception.blazepose.person_detector import PersonDetector
from pipeline.perception.blazepose.queries import (
    DetectionQuery,
    LandmarkQuery,
    PersonRoi,
    Plan,
    Query,
    ask,
    gather,
    run_plan,
)
from pipeline.perception.blazepose.resample import Box, crop, letterbox, painted_over, parts
from pipeline.perception.blazepose.roi import Roi, same_place
from pipeline.perception.blazepose.roi_tracking import (
    Looks,
    confirm_candidates,
    look_ahead,
    track_rois,
)
from pipeline.perception.blazepose.slots import fill_places, importance, worth_checking
from pipeline.perception.blazepose.views import views_of

_MOST_THREADS = 4
"""As many as a window of one person has frames."""
_SPARE_CANDIDATES = 2
"""Candidates that are checked beyond the free places, since some turn out not to be people."""
_MOST_CANDIDATES = 3
"""Candidates that are checked in a later pass."""
_LOST_PASSES = 15
"""Detector passes for which the surroundings of a lost person are searched: two seconds."""
_LEAST_SIDE = 16.0
"""ROIs with a smaller side, in pixels, show too little of a person."""
_SCORE_PASSES = 2
"""Detector passes after which a score that was not renewed is dropped. The whole picture is looked
at in every other pass at least."""
_KNOWN_FRAMES = 15
"""A person who was followed for fewer frames is not searched for."""


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
        lost: The last places of people who were lost, the most important first; ``frames_missed``
            counts the passes for which to search there.
        unfollowed: How many people the last pass over the whole picture detected beyond the places.
    """

    rois: tuple[Roi, ...] = ()
    next_id: int = 0
    turn: int = 0
    refused: tuple[Roi, ...] = ()
    since_detection: int = WINDOW_FRAMES
    lost: tuple[Roi, ...] = ()
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
        lost: As in the next memory, but for people who are lost in this window.
        unfollowed: As in the next memory.
    """

    tracked: tuple[Roi, ...]
    candidates: tuple[Roi, ...]
    refused: tuple[Roi, ...]
    next_id: int
    turn: int
    since_detection: int = 0
    lost: tuple[Roi, ...] = ()
    unfollowed: int = 0


class BlazePose(Perceiver):
    """The default perceiver; LiteRT on the CPU. It belongs to one thread at a time.

    Args:
        files: The two model files by name.
        max_people: The most people to track, those who matter most (`slots.py`).
        threads: How many threads answer landmark queries; None for one a core, up to four.
        second: The file of the second detector; None does without it.
        areas: Where people are detected and followed.

    Raises:
        ValueError: ``max_people`` is below 1, or a file is not the expected model.
        RuntimeError: LiteRT is not installed.
    """

    name = "blazepose"
    has_second = False
    """Whether there is a second detector."""

    def __init__(
        self,
        files: Mapping[str, Path],
        max_people: int = 8,
        threads: int | None = None,
        second: Path | None = None,
        areas: Areas = EVERYWHERE,
    ) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is tracked, not {max_people}")
        cores = os.cpu_count() or 1
        threads = max(1, min(threads or _MOST_THREADS, cores))
        self.max_people, self.areas = max_people, areas
        self._anchors = detector.make_anchors()
        self._detect = load_model(files["pose_detection.tflite"], detector.OUTPUTS, threads)
        landmark = files["pose_landmark_full.tflite"]
        self._landmark = load_model(landmark, landmarks.OUTPUTS, threads)
        # Two queries on a thread each take less time than one after another on both threads: no
        # thread waits for another at the end of each layer, least of all beside other work.
        self._idle: SimpleQueue[Model] = SimpleQueue()
        for _ in range(threads):
            self._idle.put(load_model(landmark, landmarks.OUTPUTS, 1))
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "landmarks")
        self.has_second = second is not None
        if second is not None:
            self._second = PersonDetector(second, threads)

    def close(self) -> None:
        """Release the models; the perceiver cannot be used afterwards."""
        self._pool.shutdown()
        for name in ("_detect", "_second", "_landmark", "_idle"):
            self.__dict__.pop(name, None)

    def embed(self, window: Window, memory: Memory | None) -> Embedding:
        """Detect people on the key frame.

        A detection at the place of a tracked ROI only refreshes its score, or moves an ROI whose
        person was missed. Any other becomes a candidate, which `decode` checks.
        Windows of fewer than four frames share one detector pass.

        Args:
            window: One to four frames of a source.
            memory: What `decode` returned for the window before; None for the first one.
        """
        return run_plan(self.detection_plan(window, memory), self.answer)

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
        return run_plan(self._decode(embedding, window), self.answer)

    def unfollowed(self, memory: Memory) -> int:
        """Return how many people of the last window have no place."""
        # With a free place, what is not followed was refused: it is no person.
        return memory.unfollowed if len(memory.rois) >= self.max_people else 0

    def detection_plan(self, window: Window, memory: Memory | None) -> Plan[Embedding]:
        before = Memory() if memory is None or window.reset else memory
        if before.since_detection < WINDOW_FRAMES:
            return Embedding(
                before.rois, (), before.refused, before.next_id, before.turn,
                before.since_detection, before.lost, before.unfollowed,
            )  # fmt: skip
        size = window.key_frame.size
        views, second_views = views_of(
            size,
            before.turn,
            places_left=len(before.rois) < self.max_people,
            all_present=bool(before.rois) and not any(r.frames_missed for r in before.rois),
            lost=before.lost,
            second=self.has_second,
        )
        over_all = any(set(parts(*size)) <= set(each) for each in (views, second_views))
        # What one detector overlooks, a second one may still see in the next pass.
        valid = 1 if over_all and not self.has_second else _SCORE_PASSES
        tracked = [_one_pass_older(roi, valid) for roi in before.rois]
        refused = _one_pass_less(before.refused)
        # Tiles outside of all regions show no person that would be kept.
        searched = [
            tuple(view for view in each if self.areas.reaches(view, size))
            for each in (views, second_views)
        ]
        query = DetectionQuery(window.key_frame, searched[0], searched[1])
        detections = self._inside((yield from ask(query)), size)
        tracked, others = _matched(tracked, detections)
        candidates = [roi for roi in others if same_place(roi, refused) is None]
        spare = _SPARE_CANDIDATES * (2 if before.turn == 0 else 1)
        chosen = worth_checking(candidates, tracked, self.max_people, spare, size)
        # A crowd is checked little by little, so that no window takes much longer than the others.
        chosen = chosen[: None if before.turn == 0 else _MOST_CANDIDATES]
        # A pass over a tile alone does not count the others.
        free = max(self.max_people - len(tracked), 0)
        unfollowed = max(len(candidates) - free, 0) if over_all else before.unfollowed
        return Embedding(
            tuple(tracked), tuple(chosen), refused, before.next_id, before.turn + 1,
            lost=_one_pass_less(before.lost), unfollowed=unfollowed,
        )  # fmt: skip

    def _decode(
        self,
        embedding: Embedding,
        window: Window,
        looks: Looks | None = None,
        followed: Followed | None = None,
    ) -> Plan[tuple[list[tuple[Person, ...]], Memory]]:
        """The people of each frame; ``looks`` is what was looked for beside the detection, for
        a network that answers batches faster than one query after another. ``followed`` is what
        came of them, if that is known already."""
        count, key, at_once = len(window.frames), window.key, looks is not None
        if looks is None:
            looks = yield from look_ahead(window, embedding.tracked, sparing=True)
        # Tracked people before candidates: a candidate that is a part of one of them is refused.
        if followed is None:
            present, tracked = yield from track_rois(window, key, embedding.tracked, looks, at_once)
        else:
            present, tracked = followed.present, followed.tracked
        new, refused = yield from confirm_candidates(
            window.key_frame, embedding.candidates, embedding.next_id, present
        )
        size = window.key_frame.size
        rois = fill_places(
            self._inside(tracked, size),
            self._inside([roi for _, roi in new], size),
            self.max_people,
            size,
        )
        ids = {roi.id for roi in rois}
        people = {key: tuple(p for p in (*present, *(p for p, _ in new)) if p.roi in ids)}
        if followed is None or new:
            others, last_rois = yield from self._outward(window, rois, looks, at_once)
        else:
            others, last_rois = followed.people, followed.last_rois
        people |= others
        ended = {r.id for r in embedding.tracked} - {r.id for r in tracked}
        ended |= ids - {r.id for r in last_rois}
        memory = Memory(
            last_rois,
            embedding.next_id + len(new),
            embedding.turn,
            (*embedding.refused, *refused),
            embedding.since_detection + count,
            people_lost([*embedding.tracked, *rois], ended, embedding.lost, last_rois, size),
            embedding.unfollowed,
        )
        return [people[t] for t in range(count)], memory

    def _follow(self, window: Window, rois: Sequence[Roi], looks: Looks) -> Plan[Followed]:
        """What `_decode` finds of the tracked people where there are no new ones."""
        present, tracked = yield from track_rois(window, window.key, rois, looks, True)
        size = window.key_frame.size
        kept = fill_places(self._inside(tracked, size), (), self.max_people, size)
        others, last_rois = yield from self._outward(window, kept, looks, True)
        return Followed(present, tracked, others, last_rois)

    def _ahead(self, window: Window, rois: Sequence[Roi]) -> Plan[tuple[Looks, Followed | None]]:
        """Look for the tracked people, and follow them without their detections' scores.

        Args:
            window: The window.
            rois: The tracked people's ROIs, before the detection.

        Returns:
            The looks; and the people, or None where a detection may move an ROI, or its score
            decides something.
        """
        # Missed people are left out: the detection may move their ROIs.
        present = [roi for roi in rois if not roi.frames_missed]
        looks = yield from look_ahead(window, present)
        if not rois or len(present) < len(rois):
            return looks, None
        unscored = [without_score(roi) for roi in rois]
        try:
            followed = yield from self._follow(window, unscored, looks)
        except ScoreNeeded:
            return looks, None
        return looks, followed

    def _outward(
        self, window: Window, rois: tuple[Roi, ...], looks: Looks, at_once: bool
    ) -> Plan[tuple[dict[int, tuple[Person, ...]], tuple[Roi, ...]]]:
        """The people of all frames but the key frame, and the ROIs after the last frame."""
        key, count = window.key, len(window.frames)
        # Outward from the key frame, so that every ROI is as few frames as possible from those that
        # detections confirmed. Both directions run in step: a GPU answers them in one batch.
        (after, last_rois), (before, _) = yield from gather(
            [
                self._track_frames(window, range(key + 1, count), rois, looks, at_once),
                self._track_frames(window, range(key - 1, -1, -1), rois, looks, at_once),
            ]
        )
        # Only the forward direction leads to the next window.
        return after | before, last_rois

    @staticmethod
    def _track_frames(
        window: Window, times: Iterable[int], rois: tuple[Roi, ...], looks: Looks, at_once: bool
    ) -> Plan[tuple[dict[int, tuple[Person, ...]], tuple[Roi, ...]]]:
        """Track frame by frame; the people in each, and the ROIs after the last."""
        people = {}
        for t in times:
            people[t], rois = yield from track_rois(window, t, rois, looks, at_once)
        return people, rois

    def answer(self, queries: list[Query]) -> list[Any]:
        people = iter(self._people_in([q for q in queries if isinstance(q, LandmarkQuery)]))
        return [
            next(people)
            if isinstance(query, LandmarkQuery)
            else self._detections(query.frame.image, query.views, query.second_views)
            for query in queries
        ]

    def _people_in(self, queries: list[LandmarkQuery]) -> list[PersonRoi | None]:
        # As many as keep every thread busy; the rest one by one, each on all threads.
        split = len(queries) - len(queries) % self._threads
        together = self._pool.map(self._on_one_thread, queries[:split])
        return [*together, *(self._person_in(query, self._landmark) for query in queries[split:])]

    def _on_one_thread(self, query: LandmarkQuery) -> PersonRoi | None:
        model = self._idle.get()
        try:
            return self._person_in(query, model)
        finally:
            self._idle.put(model)

    @staticmethod
    def _person_in(query: LandmarkQuery, model: Model) -> PersonRoi | None:
        view = crop(query.frame.image, query.roi, landmarks.INPUT)
        if query.without is not None and query.without.mask is not None:
            view = painted_over(view, query.roi, query.without.mask)
        outputs = model(np.ascontiguousarray(view[:, ::-1]) if query.mirrored else view)
        # An empty ROI is answered before its heatmaps and its mask are read.
        if landmarks.presence_of(outputs) < query.min_presence:
            return None
        readings = landmarks.readings_of(outputs)
        return landmarks.read_people([query.roi], readings, [query.mirrored])[0]

    def _detections(
        self, image: np.ndarray, views: Iterable[Box], second_views: Sequence[Box] = ()
    ) -> list[Roi]:
        """ROIs of the detections in parts of a picture, each place once."""
        rois = []
        for view in views:
            tensor, to_image = letterbox(image, view, detector.INPUT)
            raw, scores = self._detect(tensor)
            boxes = detector.decode_boxes(raw[0], scores[0, :, 0], self._anchors)
            rois += detector.rois_of(detector.suppress(boxes), to_image)
        return distinct(rois, self._second.detect(image, second_views) if second_views else [])

    def _inside(self, rois: Iterable[Roi], size: tuple[int, int]) -> list[Roi]:
        return [roi for roi in rois if self.areas.keeps(roi.x, roi.y, size)]


def distinct(rois: Sequence[Roi], second: Sequence[Roi] = ()) -> list[Roi]:
    """Return each place once, without ROIs too small to read.

    Args:
        rois: Of BlazePose's detector; these come first, since they know hips and rotation.
        second: Of the second detector.
    """
    found: list[Roi] = []
    # Views overlap, so a person may be detected in several of them.
    for each in (rois, second):
        for roi in sorted(each, key=lambda roi: -roi.score):
            match = same_place(roi, found)
            if match is not None:
                found[match] = replaced(found[match], score=max(found[match].score, roi.score))
            elif roi.side > _LEAST_SIDE:
                found.append(roi)
    return found


def _matched(tracked: Sequence[Roi], detections: Sequence[Roi]) -> tuple[list[Roi], list[Roi]]:
    """The tracked ROIs with what a detector pass says of them, and the detections of others."""
    rois, others = list(tracked), list(detections)
    # People who are present first, each with one detection: what is left near a missed person is
    # not theirs. Only the ROI of a missed person is moved.
    for missed in (False, True):
        for k, roi in enumerate(tracked):
            if bool(roi.frames_missed) == missed and (near := same_place(roi, others)) is not None:
                found = others.pop(near)
                if missed:
                    roi = replaced(roi, x=found.x, y=found.y, side=found.side, angle=found.angle)
                rois[k] = replaced(roi, score=found.score, unconfirmed=0)
    return rois, [roi for roi in others if same_place(roi, rois) is None]


def _one_pass_older(roi: Roi, valid: int) -> Roi:
    """A tracked ROI at the next detector pass, without its score after ``valid`` passes."""
    passes = roi.unconfirmed + 1
    return replaced(roi, unconfirmed=passes, score=roi.score if passes < valid else 0.0)


def _one_pass_less(rois: Sequence[Roi]) -> tuple[Roi, ...]:
    """The ROIs whose ``frames_missed`` counts passes, after one more pass."""
    return tuple(
        replaced(r, frames_missed=r.frames_missed - 1) for r in rois if r.frames_missed > 1
    )


def people_lost(
    before: Sequence[Roi],
    ended: set[int],
    lost: Sequence[Roi],
    tracked: Sequence[Roi],
    size: tuple[int, int],
) -> tuple[Roi, ...]:
    """The people to search for after a window.

    Args:
        before: All people who were followed in the window.
        ended: The ids of those whose tracks ended in it.
        lost: Those who were lost earlier.
        tracked: Those who are followed now.
        size: (H, W) of the picture.
    """
    known = {r.id: r for r in before if r.id in ended and r.age >= _KNOWN_FRAMES}
    newly = [replaced(r, frames_missed=_LOST_PASSES) for r in known.values()]
    # A person found where one was lost is probably the same.
    remaining = [r for r in (*newly, *lost) if same_place(r, tracked) is None]
    return tuple(sorted(remaining, key=lambda roi: -importance(roi, size)))
