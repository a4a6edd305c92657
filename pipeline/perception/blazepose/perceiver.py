"""BlazePose for several people: detect on key frames, follow by regions on every frame.

``embed`` runs the detector on the key frame and tells what it finds from the people followed so
far; ``decode`` runs the landmark model in each region of each frame, key frame first and outward
from there, each frame's regions coming from its decoded neighbour's landmarks.
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
from pipeline.perception.blazepose.resample import Box, crop, letterbox, painted_over, tiles
from pipeline.perception.blazepose.roi import Roi, same_place
from pipeline.perception.blazepose.roi_tracking import confirm_candidates, track_rois

_FAVOUR = 1.3
"""A newcomer takes somebody's place only when this much larger."""
_MORE = 2
"""Candidates looked at beyond the free places: some are nobody."""
_EAGER = 4
"""Windows at the beginning for which all of the picture is searched: one frame may be blurred."""


@dataclass(frozen=True)
class Memory:
    """What BlazePose remembers of a source: where to look for the people it follows, the longest
    followed first; the next free region id; whose turn it is among the detector's views; where the
    detector was wrong lately (``frames_missed`` counts the passes to leave such a place alone); and
    how many frames ago its last pass was."""

    rois: tuple[Roi, ...] = ()
    next_id: int = 0
    turn: int = 0
    refused: tuple[Roi, ...] = ()
    since: int = WINDOW_FRAMES


@dataclass(frozen=True)
class Embedding:
    """What the key frame told: where to look for those followed and, the largest first, for those
    who may be new. ``next_id``, ``turn``, ``refused`` and ``since`` are the next memory's, but for
    the window's own frames."""

    followed: tuple[Roi, ...]
    candidates: tuple[Roi, ...]
    refused: tuple[Roi, ...]
    next_id: int
    turn: int
    since: int = 0


class BlazePose(Perceiver):
    """The default perceiver; LiteRT on the CPU. Not to be called from two threads at once.

    ``files`` are the two model files by name; at most ``max_people`` are followed, the largest
    ones; ``threads`` are LiteRT's own. Raises ValueError when a file is not the model it should
    be, RuntimeError when LiteRT is not installed.
    """

    name = "blazepose"

    def __init__(self, files: Mapping[str, Path], max_people: int = 4, threads: int = 2) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is followed, not {max_people}")
        threads = max(1, min(threads, os.cpu_count() or 1))
        self.max_people = max_people
        self._anchors = detector.make_anchors()
        self._detect = load_model(files["pose_detection.tflite"], detector.OUTPUTS, threads)
        self._landmark = load_model(files["pose_landmark_full.tflite"], landmarks.OUTPUTS, threads)

    def close(self) -> None:
        """Give back the models; nothing can be perceived after it."""
        self.__dict__.pop("_detect", None)
        self.__dict__.pop("_landmark", None)

    def embed(self, window: Window, memory: Memory | None) -> Embedding:
        """Look for people on the key frame. Whom the detector finds where somebody is followed
        is no news, but a second opinion; where somebody was just lost, it says where to look.

        A detector's pass serves four frames also where windows are shorter: until then the
        embedding is the memory's."""
        return run_plan(self._embed(window, memory), self._answer)

    def decode(
        self, embedding: Embedding, window: Window
    ) -> tuple[list[tuple[Person, ...]], Memory]:
        """The people of every frame, and what to begin the next window with."""
        return run_plan(self._decode(embedding, window), self._answer)

    def _embed(self, window: Window, memory: Memory | None) -> Plan[Embedding]:
        fresh = memory is None or window.reset
        known = Memory() if memory is None or window.reset else memory
        if known.since < WINDOW_FRAMES:
            yield [PrefetchHint(window, tuple(r for r in known.rois if not r.frames_missed))]
            return Embedding(
                known.rois, (), known.refused, known.next_id, known.turn, known.since
            )  # fmt: skip
        size = window.key_frame.size
        views = self._views(size, known, fresh)
        # Who is not asked about this time keeps the detector's last word.
        whole = views[0][2:] == size[::-1]
        followed = [replace(r, score=0.0) if whole else r for r in known.rois]
        refused = [
            replace(r, frames_missed=r.frames_missed - 1)
            for r in known.refused
            if r.frames_missed > 1
        ]
        candidates = []
        ahead = PrefetchHint(window, tuple(r for r in followed if not r.frames_missed))
        found, _ = yield [DetectionQuery(window.key_frame, tuple(views)), ahead]
        for roi in found:
            match = same_place(roi, [r for r in followed if r.frames_missed])
            if match is not None:
                lost = [k for k, r in enumerate(followed) if r.frames_missed][match]
                followed[lost] = replace(
                    followed[lost], x=roi.x, y=roi.y, side=roi.side, angle=roi.angle,
                    score=roi.score,
                )  # fmt: skip
            elif (match := same_place(roi, followed)) is not None:
                followed[match] = replace(followed[match], score=roi.score)
            elif same_place(roi, refused) is None:
                candidates.append(roi)
        chosen = self._worth_a_look(candidates, followed, fresh)
        return Embedding(
            tuple(followed), tuple(chosen), tuple(refused), known.next_id, known.turn + 1
        )

    def _decode(
        self, embedding: Embedding, window: Window
    ) -> Plan[tuple[list[tuple[Person, ...]], Memory]]:
        count, key = len(window.frames), window.key
        seen, followed = yield from track_rois(window.key_frame, embedding.followed)
        met, wrong = yield from confirm_candidates(
            window.key_frame, embedding.candidates, embedding.next_id, seen
        )
        rois = self._largest(followed, [roi for _, roi in met])
        ids = {roi.id for roi in rois}
        people = {key: tuple(p for p in (*seen, *(p for p, _ in met)) if p.roi in ids)}
        # Outward from the key frame, both ways at once.
        (after, last), (before, _) = yield from gather(
            [
                self._along(window, range(key + 1, count), rois),
                self._along(window, range(key - 1, -1, -1), rois),
            ]
        )
        people |= after | before
        refused = (*embedding.refused, *wrong)
        memory = Memory(
            last, embedding.next_id + len(met), embedding.turn, refused, embedding.since + count
        )  # fmt: skip
        return [people[t] for t in range(count)], memory

    @staticmethod
    def _along(
        window: Window, times: Iterable[int], rois: tuple[Roi, ...]
    ) -> Plan[tuple[dict[int, tuple[Person, ...]], tuple[Roi, ...]]]:
        """Follow frame by frame; who is in each, and the regions after the last."""
        people = {}
        for t in times:
            people[t], rois = yield from track_rois(window.frames[t], rois)
        return people, rois

    def _answer(self, asked: list[Query]) -> list[Any]:
        return [
            self._person_in(one)
            if isinstance(one, LandmarkQuery)
            else self._detections(one.frame.image, one.views)
            if isinstance(one, DetectionQuery)
            else None
            for one in asked
        ]

    def _person_in(self, look: LandmarkQuery) -> PersonRoi | None:
        view = crop(look.frame.image, look.roi, landmarks.INPUT)
        if look.without is not None and look.without.mask is not None:
            view = painted_over(view, look.roi, look.without.mask)
        outputs = self._landmark(np.ascontiguousarray(view[:, ::-1]) if look.mirrored else view)
        if landmarks.presence_of(outputs) < look.least:
            return None
        return landmarks.read_person(look.roi, landmarks.reading_of(outputs), look.mirrored)

    def _views(self, size: tuple[int, int], known: Memory, fresh: bool) -> list[Box]:
        """The parts of a picture to run the detector on. The whole and, while somebody may be
        new, a tile in its turn, every other window without the whole where all who are followed
        are seen; all of them where nothing is known, and all large ones soon after."""
        height, width = size
        whole = (0, 0, width, height)
        levels = tiles(height, width, detector.INPUT)
        if fresh:
            return [whole, *(tile for level in levels for tile in level)]
        if len(known.rois) >= self.max_people or not levels:
            return [whole]
        if known.turn < _EAGER:
            return [whole, *levels[0]]
        # Large tiles have two turns of three: nearer people matter more, and have moved on sooner.
        level = levels[-1] if known.turn % 3 == 2 else levels[0]
        turn = known.turn // 3 if known.turn % 3 == 2 else known.turn - known.turn // 3
        tile = level[turn % len(level)]
        settled = bool(known.rois) and not any(roi.frames_missed for roi in known.rois)
        return [tile] if settled and known.turn % 2 else [whole, tile]

    def _worth_a_look(
        self, candidates: list[Roi], followed: Sequence[Roi], fresh: bool
    ) -> list[Roi]:
        """The largest candidates, so many that every free place may be filled; with none free,
        those large enough to take somebody's."""
        free = self.max_people - len(followed)
        least = 0.0 if free > 0 else _FAVOUR * min(roi.side for roi in followed)
        large = sorted((r for r in candidates if r.side > least), key=lambda r: -r.side)
        return large[: max(free, 0) + _MORE * (2 if fresh else 1)]

    def _detections(self, image: np.ndarray, views: Iterable[Box]) -> list[Roi]:
        """Where the detector finds people in parts of a picture, the surest first, each once."""
        found = []
        for view in views:
            tensor, to_image = letterbox(image, view, detector.INPUT)
            raw, scores = self._detect(tensor)
            boxes = detector.decode_boxes(raw[0], scores[0, :, 0], self._anchors)
            found += detector.regions_of(detector.suppress(boxes), to_image)
        return self._once(found)

    @staticmethod
    def _once(found: list[Roi]) -> list[Roi]:
        """Each place once, the surest first."""
        once: list[Roi] = []
        for roi in sorted(found, key=lambda roi: -roi.score):
            if same_place(roi, once) is None and roi.side > 16:
                once.append(roi)
        return once

    def _largest(self, followed: Sequence[Roi], new: Sequence[Roi]) -> tuple[Roi, ...]:
        """The largest people, those already followed favoured and first."""
        sides = [r.side * _FAVOUR for r in followed] + [r.side for r in new]
        chosen = sorted(np.argsort(sides)[::-1][: self.max_people])
        return tuple([*followed, *new][i] for i in chosen)
