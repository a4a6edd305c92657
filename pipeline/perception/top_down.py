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
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person, as_blazepose
from pipeline.core.skeleton import BLAZEPOSE_33
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
from pipeline.perception.blazepose.roi import Roi, continued, roi_between
from pipeline.perception.blazepose.roi_tracking import confirm_candidates
from pipeline.perception.blazepose.slots import fill_places

_MARGIN = 0.05
"""How far a detector's box is beyond the keypoints' on every side, in parts of its longer side:
hair, soles and clothes."""
_LEAST_SIDE_PX = 8.0
"""A box with a shorter longer side shows nothing."""
_STRAYED = 0.2
"""A crop whose person's box is this far off it, in parts of its side, is taken again there."""
_LEAST_SCORE = 0.3
"""A person that the network is less sure of is missed in this frame."""
_MAX_MISSED = 12
"""A track ends with this many frames in a row without its person."""
_SAME = 0.12
"""Two people whose keypoints are nearer, in parts of their size, are one; the older track stays."""
_FADE_S = 0.25
"""For how long a person is expected to move on as before, in seconds."""
_MASK, _LIMB_WIDTH = 96, 9
"""Side of a rough mask, and width of a limb in it, in its pixels."""
_TRUNK = BLAZEPOSE_33.indices("left_shoulder", "right_shoulder", "right_hip", "left_hip")
_LIMBS = [(11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28)]
"""Upper arms, forearms, thighs and shanks."""
_LEAVING = 0.2
"""A person with fewer of its keypoints than this in the picture has left it."""


@dataclass(frozen=True, eq=False)
class CropQuery:
    """Where are the keypoints of the person in a box of a frame? The answer is a `Person`.

    Attributes:
        frame: The frame.
        box: (4,) float64 x0, y0, x1, y1 in pixels around what is seen of the person.
    """

    frame: Frame
    box: np.ndarray


class CropNetwork(Protocol):
    """A network that measures one person in a crop; subclass it and write `measure`.

    It belongs to one thread at a time and remembers nothing.

    Attributes:
        name: Its name in reports.
        has_confidence: Whether ``Person.score`` and ``visibility`` say how sure it is. Where not,
            BlazePose's landmark model says whether there is a person.
        reports: One line on what computes it.
    """

    name: str
    has_confidence: bool
    reports: tuple[Any, ...]

    def measure(self, queries: Sequence[CropQuery]) -> list[Person]:
        """Return the person of each query, in any keypoint set, all from one batch.

        Args:
            queries: One or more.
        """
        ...


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a followed person was last, and how it moves.

    Attributes:
        points: (33, 2) its keypoints as BlazePose's landmarks, pixels.
        box: (4,) pixels around them.
        velocity: (4,) pixels a second of the box's sides.
        time_s: The time of that frame, seconds.
    """

    points: np.ndarray
    box: np.ndarray
    velocity: np.ndarray
    time_s: float

    @classmethod
    def of(cls, person: Person, time_s: float) -> Motion:
        """Return the motion of a person of whom there is only one frame."""
        return cls(
            as_blazepose(person).landmarks_px, person.box_px.astype(float), np.zeros(4), time_s
        )

    def at(self, time_s: float) -> np.ndarray:
        """Return the box (4,) to expect at a time; the velocity fades."""
        ahead_s = float(np.clip(time_s - self.time_s, -_FADE_S, _FADE_S))
        return self.box + self.velocity * ahead_s

    def drift(self, person: Person, time_s: float) -> float:
        """Return how far a person's keypoints are from where they are expected, in pixels."""
        moved = (self.at(time_s) - self.box).reshape(2, 2).mean(0)
        off = as_blazepose(person).landmarks_px - (self.points + moved)
        return float(np.median(np.linalg.norm(off, axis=1)))

    def then(self, person: Person, time_s: float) -> Motion:
        """Return the motion after the person was seen at a later time."""
        following, step_s = Motion.of(person, time_s), time_s - self.time_s
        if step_s <= 0:
            return following
        # The mean of old and new: a single box is too unsteady to tell a velocity.
        velocity = 0.5 * (self.velocity + (following.box - self.box) / step_s)
        return replace(following, velocity=velocity)


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
    """

    def __init__(self, finder: BlazePose, network: CropNetwork) -> None:
        self._finder, self._network = finder, network
        self.name = network.name
        self.reports = (*network.reports, *finder.reports)

    def prepare(self, window: Window) -> Window:
        """Return what the finder's `prepare` returns."""
        return self._finder.prepare(window)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        """Return the people of every frame, and the memory for the next window.

        Args:
            embedding: The source's memory: nothing of a key frame is shared here.
            window: The window.
        """
        return self.perceive_many([window], [embedding])[0]

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Memory | None]
    ) -> list[tuple[People, Memory]]:
        """Return what `decode` returns for each window, all of them run in step."""
        plans = [self._window_plan(w, memory) for w, memory in zip(windows, memories)]
        return run_plan(gather(plans), self._answer)

    def unfollowed(self, memory: Memory) -> int:
        """Return how many people of the last window have no place."""
        return memory.found.unfollowed

    def close(self) -> None:
        """Release the models; the perceiver cannot be used afterwards."""
        self._finder.close()

    def _answer(self, queries: list[Any]) -> list[Any]:
        """The answers of both kinds of queries, each kind in one batch."""
        crops = [query for query in queries if isinstance(query, CropQuery)]
        others = [query for query in queries if not isinstance(query, CropQuery)]
        measured = iter(self._network.measure(crops) if crops else ())
        found = iter(self._finder.answer(others) if others else ())
        return [next(measured if isinstance(query, CropQuery) else found) for query in queries]

    def _window_plan(self, window: Window, memory: Memory | None) -> Plan[tuple[People, Memory]]:
        before = Memory() if memory is None or window.reset else memory
        embedding = yield from self._finder.detection_plan(window, before.found)
        motions = {**before.motions, **_sent_to(embedding, before, window)}
        tracks = yield from self._measured(window, motions)
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
        shown = {key: box for key, box in boxes.items() if _longer(box) > _LEAST_SIDE_PX}
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
        if not self._network.has_confidence:
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
        none saw the person lately, the landmark model's."""
        key = window.key
        scores = {roi.id: roi.score for roi in embedding.tracked if roi.score > 0}
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


def in_picture(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a box (4,) of keypoints as a detector's: with a margin, cut off by the picture.

    Args:
        box: x0, y0, x1, y1 in pixels.
        size: (H, W) of the picture.
    """
    margin = _MARGIN * _longer(box)
    grown = box + np.array([-margin, -margin, margin, margin])
    height, width = size
    return np.clip(grown, -0.5, np.tile([width - 0.5, height - 0.5], 2))


def seen_box(person: Person, size: tuple[int, int]) -> np.ndarray:
    """Return the box (4,) around a person as a detector would see it (`in_picture`)."""
    return in_picture(person.box_px.astype(float), size)


def strayed(asked: np.ndarray, found: np.ndarray) -> bool:
    """Return whether a person's box (4,) lies too far off the one that was asked for."""
    return bool(np.abs(asked - found).max() > _STRAYED * _longer(asked))


def roi_of(person: Person) -> Roi:
    """Return the ROI in which BlazePose's landmark model looks for a measured person.

    As from its own alignment points: about the hips, as large as the farthest keypoint demands, up
    along the spine.
    """
    points = as_blazepose(person).landmarks_px.astype(float)
    hips = points[list(BLAZEPOSE_33.hips)].mean(0)
    spine = points[BLAZEPOSE_33.indices("left_shoulder", "right_shoulder")].mean(0) - hips
    reach = float(np.linalg.norm(points - hips, axis=1).max())
    up = spine / max(float(np.linalg.norm(spine)), 1e-6)
    roi = roi_between(hips, hips + max(reach, 1.0) * up, 0.0, person.roi)
    return replace(roi, points=points.astype(np.float32))


def _longer(box: np.ndarray) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


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
    return replace(continued(replace(roi, age=age), place), frames_missed=count - 1 - last)


def _sent_to(embedding: Embedding, before: Memory, window: Window) -> dict[int, Motion]:
    """The motions of missed people that a detector has found somewhere else."""
    places = {roi.id: roi for roi in before.found.rois}
    time_s = window.key_frame.pts_s
    return {
        roi.id: _placed(before.motions[roi.id], places[roi.id], roi, time_s)
        for roi in embedding.tracked
        if roi.frames_missed and (roi.x, roi.y) != (places[roi.id].x, places[roi.id].y)
    }


def _placed(motion: Motion, old: Roi, new: Roi, time_s: float) -> Motion:
    """The motion of a person whose ROI was moved: the same figure, there and as large."""
    grown = new.side / old.side

    def there(points: np.ndarray) -> np.ndarray:
        return (points - (old.x, old.y)) * grown + (new.x, new.y)

    box = there(motion.box.reshape(2, 2)).ravel()
    return Motion(there(motion.points), box, np.zeros(4), time_s)


def _with_masks(people: Sequence[Person]) -> list[Person]:
    """The people as BlazePose's, with the masks by which parts of them are refused as people."""
    return [replace(points, mask=limbs_mask(points)) for points in map(as_blazepose, people)]


def limbs_mask(person: Person) -> Mask:
    """Return a rough mask of a person of BlazePose's landmarks: trunk, head and limbs."""
    points = person.landmarks_px.astype(float)
    low, side = points.min(0), max(float(np.ptp(points, axis=0).max()), 1.0)
    low, side = low - 0.1 * side, 1.2 * side
    places = np.rint((points - low) * ((_MASK - 1) / side)).astype(np.int32)
    mask = np.zeros((_MASK, _MASK), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(places[_TRUNK]), 1)
    neck = places[_TRUNK[:2]].mean(0).astype(np.int32)
    for start, end in [(places[a], places[b]) for a, b in _LIMBS] + [(places[0], neck)]:
        cv2.line(mask, start.tolist(), end.tolist(), 1, _LIMB_WIDTH)
    scale = side / (_MASK - 1)
    to_image = np.array([[scale, 0, low[0]], [0, scale, low[1]]], np.float32)
    return Mask(mask.astype(np.float32), to_image)
