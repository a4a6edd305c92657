"""People measured by a network that reads one person's crop at a time.

`CropNetwork` is what such a network has to offer; `TopDown` does the rest. BlazePose's detectors
and landmark model find people on key frames and confirm them, and its rules say who gets a place
(`blazepose.slots`). From then on a person is followed by the network's own keypoints: the box
around those of the last frame, moved on with its velocity, is the next crop. All people and frames
of a window, and of all sources' windows, are one batch. A second, small one is needed where people
are new, or where a crop missed its person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.core.frame import Window
from pipeline.core.people import Person, as_blazepose
from pipeline.perception.base import People, Perceiver, PerceiverOptions
from pipeline.perception.blazepose import make as blazepose
from pipeline.perception.blazepose.overlap import median_distance, share_inside
from pipeline.perception.blazepose.perceiver import BlazePose, Embedding, people_lost
from pipeline.perception.blazepose.perceiver import Memory as Found
from pipeline.perception.blazepose.queries import (
    MIN_PRESENCE,
    LandmarkQuery,
    Plan,
    gather,
    run_plan,
)
from pipeline.perception.blazepose.roi import Roi, continued
from pipeline.perception.blazepose.roi_tracking import confirm_candidates
from pipeline.perception.blazepose.slots import fill_places
from pipeline.perception.crop_tracking import (
    LEAST_SIDE_PX,
    Motion,
    in_picture,
    limbs_mask,
    longer_side,
    roi_of,
    seen_box,
    strayed,
)
from pipeline.perception.crops import CropNetwork, CropQuery

_LEAST_SCORE = 0.3
"""A person that the network is less sure of is missed in this frame."""
_MAX_MISSED = 12
"""A track ends with this many frames in a row without its person."""
_SAME = 0.12
"""Two people whose keypoints are nearer, in parts of their size, are one."""
_LEAVING = 0.2
"""A person with fewer of its keypoints than this in the picture has left it."""


@dataclass(frozen=True)
class Memory:
    """What is remembered of a source between windows.

    Attributes:
        found: What the detection remembers; its ROIs are the followed people.
        motions: Each followed person's motion, by the id of its ROI.
    """

    found: Found = field(default_factory=Found)
    motions: Mapping[int, Motion] = field(default_factory=dict)


class TopDown(Perceiver):
    """A perceiver that measures people with a crop network. It belongs to one thread at a time.

    Args:
        finder: Finds people on key frames and confirms them; its places and areas hold.
        network: Measures them.

    Attributes:
        network: As given.
    """

    def __init__(self, finder: BlazePose, network: CropNetwork) -> None:
        self._finder, self.network = finder, network
        self.name = network.name
        self.has_mhr, self.has_skin = network.has_mhr, network.has_skin
        self.reports = (*network.reports, *finder.reports)

    def prepare(self, window: Window) -> Window:
        """Return what the finder's `prepare` returns."""
        return self._finder.prepare(window)

    def embed(self, window: Window, memory: Memory | None) -> tuple[Memory, Embedding]:
        """Detect people on the key frame.

        Args:
            window: One to four frames of a source.
            memory: What `decode` returned for the window before; None for the first one.
        """
        before = _before(window, memory)
        return before, run_plan(self._finder.detection_plan(window, before.found), self._answer)

    def decode(self, embedding: tuple[Memory, Embedding], window: Window) -> tuple[People, Memory]:
        """Return the people of every frame, and the memory for the next window.

        Args:
            embedding: What `embed` returned for this window.
            window: The same window.
        """
        return run_plan(self._decode_plan(window, *embedding), self._answer)

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Memory | None]
    ) -> list[tuple[People, Memory]]:
        """Return what ``decode(embed(...))`` returns for each window, all of them run in step."""
        plans = [self._window_plan(w, _before(w, memory)) for w, memory in zip(windows, memories)]
        return run_plan(gather(plans), self._answer)

    def unfollowed(self, memory: Memory) -> int:
        """Return how many people of the last window have no place."""
        # As BlazePose.
        found = memory.found
        return found.unfollowed if len(found.rois) >= self._finder.max_people else 0

    def close(self) -> None:
        """Release the models; the perceiver cannot be used afterwards."""
        self._finder.close()

    def _answer(self, queries: list[Any]) -> list[Any]:
        """The answers of both kinds of queries, each kind in one batch."""
        crops = [query for query in queries if isinstance(query, CropQuery)]
        others = [query for query in queries if not isinstance(query, CropQuery)]
        # A network on a GPU computes while the finder's queries are prepared.
        measuring = self.network.begin(crops) if crops else lambda: []
        found = iter(self._finder.answer(others) if others else ())
        measured = iter(measuring())
        return [next(measured if isinstance(query, CropQuery) else found) for query in queries]

    def _window_plan(self, window: Window, before: Memory) -> Plan[tuple[People, Memory]]:
        # Missed people are left out: the detection may say where they are.
        steady = {
            roi.id: before.motions[roi.id] for roi in before.found.rois if not roi.frames_missed
        }
        # Detection and followed people do not depend on each other, so they go out in one batch.
        plans: list[Plan[Any]] = [
            self._finder.detection_plan(window, before.found), self._measured(window, steady),
        ]  # fmt: skip
        embedding, measured = yield from gather(plans)
        return (yield from self._decode_plan(window, before, embedding, measured))

    def _decode_plan(
        self,
        window: Window,
        before: Memory,
        embedding: Embedding,
        measured: Mapping[int, dict[int, Person]] = MappingProxyType({}),
    ) -> Plan[tuple[People, Memory]]:
        motions = {**before.motions, **_sent_to(embedding, before, window)}
        rest = {key: motion for key, motion in motions.items() if key not in measured}
        others = yield from self._measured(window, rest)
        tracks = {key: measured[key] if key in measured else others[key] for key in motions}
        present = [track[window.key] for track in tracks.values() if window.key in track]
        new, refused = yield from confirm_candidates(
            window.key_frame, embedding.candidates, embedding.next_id, _with_masks(present)
        )
        first = {roi.id: Motion.of(person, window.key_frame.pts_s) for person, roi in new}
        tracks |= yield from self._measured(window, first)
        motions |= first
        tracks = yield from self._checked(window, embedding, motions, tracks)
        return self._remembered(window, embedding, motions, tracks, new, refused)

    def _measured(
        self, window: Window, motions: Mapping[int, Motion]
    ) -> Plan[dict[int, dict[int, Person]]]:
        """The people by id and frame, each crop where the motion leads."""
        boxes = {
            (key, t): in_picture(motion.at(frame.pts_s), frame.size)
            for key, motion in motions.items()
            for t, frame in enumerate(window.frames)
        }
        answers = yield from self._asked(window, boxes)
        # Once more where a crop missed its person.
        again = {
            key: box
            for key, person in answers.items()
            if strayed(boxes[key], box := seen_box(person, window.frames[key[1]].size))
        }
        answers |= yield from self._asked(window, again)
        tracks: dict[int, dict[int, Person]] = {key: {} for key in motions}
        for (key, t), person in answers.items():
            tracks[key][t] = replace(person, roi=key)
        return tracks

    @staticmethod
    def _asked(
        window: Window, boxes: Mapping[tuple[int, int], np.ndarray]
    ) -> Plan[dict[tuple[int, int], Person]]:
        """The person of each box that shows something."""
        shown = {key: box for key, box in boxes.items() if longer_side(box) > LEAST_SIDE_PX}
        if not shown:
            return {}
        answers = yield [CropQuery(window.frames[t], box) for (_, t), box in shown.items()]  # type: ignore[misc]
        return dict(zip(shown, answers))

    def _checked(
        self,
        window: Window,
        embedding: Embedding,
        starts: Mapping[int, Motion],
        tracks: dict[int, dict[int, Person]],
    ) -> Plan[dict[int, dict[int, Person]]]:
        """The people without those that are doubted: gone, not there, or another one's double."""
        if not self.network.has_confidence:
            tracks = yield from self._present(window, embedding, tracks)
        kept: dict[int, dict[int, Person]] = {key: {} for key in tracks}
        for t, frame in enumerate(window.frames):
            seen = [(key, track[t]) for key, track in tracks.items() if t in track]
            seen = [(key, person) for key, person in seen if _convinces(person, frame.size)]
            # Where two crops show one person, it is the one who is where that track should be.
            seen.sort(key=lambda each: starts[each[0]].drift(each[1], frame.pts_s))
            accepted: list[Person] = []
            for key, person in seen:
                points = as_blazepose(person)
                if all(median_distance(points, other) > _SAME for other in accepted):
                    accepted.append(points)
                    kept[key][t] = person
        return kept

    @staticmethod
    def _present(
        window: Window, embedding: Embedding, tracks: dict[int, dict[int, Person]]
    ) -> Plan[dict[int, dict[int, Person]]]:
        """The tracks with scores from outside, since the network has none: a detector's or, where
        none saw the person clearly, the landmark model's."""
        key = window.key
        scores = {r.id: r.score for r in embedding.tracked if r.score >= _LEAST_SCORE}
        asked = {
            each: roi_of(track[key])
            for each, track in tracks.items()
            if each not in scores and key in track
        }
        if asked:
            answers = yield [
                LandmarkQuery(window.key_frame, r, MIN_PRESENCE) for r in asked.values()
            ]
            scores |= {
                k: answer[0].score for k, answer in zip(asked, answers) if answer is not None
            }
        return {
            each: {t: replace(person, score=scores.get(each, 0.0)) for t, person in track.items()}
            for each, track in tracks.items()
        }

    def _remembered(
        self,
        window: Window,
        embedding: Embedding,
        motions: Mapping[int, Motion],
        tracks: dict[int, dict[int, Person]],
        new: Sequence[tuple[Person, Roi]],
        refused: Sequence[Roi],
    ) -> tuple[People, Memory]:
        """The people of every frame, those with a place, and the memory after the window."""
        size = window.key_frame.size
        motions = {each: _moved(motions[each], track, window) for each, track in tracks.items()}
        followed = self._inside([_after(r, tracks[r.id], window) for r in embedding.tracked], size)
        entering = self._inside([_after(roi, tracks[roi.id], window) for _, roi in new], size)
        # A new person that the network does not see was none.
        entering = [roi for roi in entering if tracks[roi.id]]
        going_on = [roi for roi in followed if roi.frames_missed < _MAX_MISSED]
        rois = fill_places(going_on, entering, self._finder.max_people, size)
        ids = {roi.id for roi in rois}
        ended = {roi.id for roi in embedding.tracked} - ids
        found = Found(
            rois,
            embedding.next_id + len(new),
            embedding.turn,
            (*embedding.refused, *refused),
            embedding.since_detection + len(window.frames),
            people_lost(embedding.tracked, ended, embedding.lost, rois, size),
            embedding.unfollowed,
        )
        people: People = [
            tuple(tracks[roi.id][t] for roi in rois if t in tracks[roi.id])
            for t in range(len(window.frames))
        ]
        return people, Memory(found, {each: motions[each] for each in ids})

    def _inside(self, rois: Sequence[Roi], size: tuple[int, int]) -> list[Roi]:
        return [roi for roi in rois if self._finder.areas.keeps(roi.x, roi.y, size)]


def make_top_down(network: CropNetwork, options: PerceiverOptions) -> TopDown:
    """Return the perceiver of a crop network, with BlazePose as its finder.

    Raises:
        WeightsError: BlazePose's files are missing.
        RuntimeError: LiteRT, or the chosen engine, is not installed.
    """
    finder = blazepose.make(options)
    assert isinstance(finder, BlazePose)
    return TopDown(finder, network)


def _before(window: Window, memory: Memory | None) -> Memory:
    """What is remembered at the beginning of a window."""
    return Memory() if memory is None or window.reset else memory


def _convinces(person: Person, size: tuple[int, int]) -> bool:
    """Whether a person is in the picture, as far as its keypoints and their confidence say."""
    return person.score >= _LEAST_SCORE and share_inside(person.landmarks_px, *size) >= _LEAVING


def _moved(motion: Motion, track: Mapping[int, Person], window: Window) -> Motion:
    """The motion after a window."""
    if not track:
        return motion
    last = max(track)
    return motion.then(track[last], window.frames[last].pts_s)


def _after(roi: Roi, track: Mapping[int, Person], window: Window) -> Roi:
    """A followed person's ROI after a window."""
    count = len(window.frames)
    if not track:
        return replace(roi, frames_missed=roi.frames_missed + count)
    last = max(track)
    place = replace(roi_of(track[last]), score=roi.score, id=roi.id)
    age = roi.age + len(track) - 1
    after = continued(replace(roi, age=age), place, window.frames[last].pts_s)
    return replace(after, frames_missed=count - 1 - last)


def _sent_to(embedding: Embedding, before: Memory, window: Window) -> dict[int, Motion]:
    """The motions of missed people that a detector has found somewhere else."""
    places = {roi.id: roi for roi in before.found.rois}
    time_s = window.key_frame.pts_s
    return {
        roi.id: before.motions[roi.id].placed(places[roi.id], roi, time_s)
        for roi in embedding.tracked
        if roi.frames_missed and (roi.x, roi.y) != (places[roi.id].x, places[roi.id].y)
    }


def _with_masks(people: Sequence[Person]) -> list[Person]:
    """The people as BlazePose's, with the masks by which parts of them are refused as people."""
    return [replace(points, mask=limbs_mask(points)) for points in map(as_blazepose, people)]
