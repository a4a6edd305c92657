"""People's identities from frame to frame: perceived people to tracks, one assignment a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.core.people import Person
from pipeline.core.skeleton import LANDMARKS
from pipeline.core.yuv import Pixels, size_of
from pipeline.tracking import likeness
from pipeline.tracking.appearance import Appearance, describe, mean_light

_IMPOSSIBLE = 1e6
"""Cost of a pair that may not be matched."""
_OTHER_LOOK = -4.0
"""Appearances that are less alike are two people's, however near they are."""
DESCRIBE_S = 0.2
"""A track's appearance is described again after this time, in seconds."""
_NEW_SHARE = 0.15
"""Share of the newest description in what is remembered: light and pose change, clothes do not."""
_COVERED = 0.1
"""Where another's box covers more of a person's, the colours may be the other's."""
_USUAL_AREA = 20.0
"""A picture's area in squares of a person's size, where the picture is not given."""


@dataclass(frozen=True)
class TrackConfig:
    """When a person counts as one of before.

    Attributes:
        remember_s: For how many seconds a track without its person can come back.
        remember: How many tracks are remembered, those seen last.
        near_s: For how many seconds a person is expected to go on as before.
        reach: How far its landmarks may then be from where they are expected, in parts of the
            person's size.
        sure: How much likelier one person must be than two after that time (natural logarithm).
        margin: How much likelier a pair must be than other pairs of the same person or track.
    """

    remember_s: float = 12.0
    remember: int = 64
    near_s: float = 0.3
    reach: float = 0.6
    sure: float = 1.5
    margin: float = 1.5


@dataclass(frozen=True, eq=False)
class Sighting:
    """A track's person in the last frame that had it.

    Attributes:
        landmarks_px: (33, 2) pixels.
        velocity: (33, 2) pixels a second.
        size_px: The longer side of the person's box.
        roi: The perceiver's id of the person, or -1.
        time_s: Time of the frame, in seconds.
        appearance: What the person looked like in clear sightings; None before the first.
        described_s: The time of the last of them.
    """

    landmarks_px: np.ndarray
    velocity: np.ndarray
    size_px: float
    roi: int
    time_s: float
    appearance: Appearance | None = None
    described_s: float = -np.inf


class _Frame:
    """The people of one frame; each is described when that is first asked for."""

    def __init__(self, people: Sequence[Person], time_s: float, image: Pixels | None) -> None:
        self.people, self.time_s, self._image = people, time_s, image
        self._light: np.ndarray | None = None
        self._appearances: dict[int, Appearance | None] = {}

    def appearance(self, index: int) -> Appearance | None:
        """What a person looks like; None without a picture."""
        if self._image is None:
            return None
        if self._light is None:
            self._light = mean_light(self._image)
        if index not in self._appearances:
            self._appearances[index] = describe(self.people[index], self._image, self._light)
        return self._appearances[index]

    def area(self, size_px: float) -> float:
        """The picture's area in squares of a person's size."""
        if self._image is None:
            return _USUAL_AREA
        height, width = size_of(self._image)
        return height * width / size_px**2

    def is_clear(self, index: int) -> bool:
        """Whether no other person's box covers much of this one's."""
        # The usual case.
        if len(self.people) == 1:
            return True
        box = self.people[index].box_px
        area = max(float(np.prod(box[2:] - box[:2])), 1.0)
        for other, person in enumerate(self.people):
            low, high = (
                np.maximum(box[:2], person.box_px[:2]),
                np.minimum(box[2:], person.box_px[2:]),
            )
            if other != index and float(np.prod(np.maximum(high - low, 0))) > _COVERED * area:
                return False
        return True


@dataclass
class Tracker:
    """The tracks of one source.

    A person that the perceiver tracks itself (``Person.roi`` 0 or more) keeps its track as long as
    the perceiver does. Others, and those that the perceiver has just lost, are matched by the mean
    distance of their landmarks from where the track's are expected, in parts of the person's size
    (Hungarian assignment; Kuhn 1955). People who come back later get their track again where place,
    size and appearance make it clearly likelier than everything else. In doubt they are new.

    Attributes:
        config: When a person counts as one of before.
        tracks: The last sighting of each track, by id.
        next_id: The id of the next new track. Ids are never used again, not even after `clear`.
    """

    config: TrackConfig = field(default_factory=TrackConfig)
    tracks: dict[int, Sighting] = field(default_factory=dict)
    next_id: int = 1

    def clear(self) -> None:
        """Forget all tracks, as at a cut."""
        self.tracks.clear()

    def assign(
        self, people: Sequence[Person], time_s: float, image: Pixels | None = None
    ) -> dict[int, Person]:
        """Return the people of one frame by track id, rising; new people get new ids.

        Args:
            people: The people of the frame.
            time_s: The frame's time in seconds.
            image: The frame's picture. Without it only place and size tell people apart.
        """
        self._forget(time_s)
        frame = _Frame(people, time_s, image)
        matched = self._followed(frame)
        matched |= self._going_on(frame, matched)
        matched |= self._coming_back(frame, matched)
        for index in sorted(set(range(len(people))) - set(matched.values())):
            matched[self.next_id] = index
            self.next_id += 1
        for track, index in matched.items():
            self.tracks[track] = self._sighting(frame, index, self.tracks.get(track))
        return {track: people[matched[track]] for track in sorted(matched)}

    def _forget(self, time_s: float) -> None:
        """Forget tracks that were not seen for too long, and the oldest of too many."""
        age_s = {track: abs(time_s - seen.time_s) for track, seen in self.tracks.items()}
        young = [track for track in self.tracks if age_s[track] <= self.config.remember_s]
        kept = sorted(young, key=lambda track: age_s[track])[: self.config.remember]
        self.tracks = {track: self.tracks[track] for track in kept}

    def _followed(self, frame: _Frame) -> dict[int, int]:
        """The indices of people that the perceiver tracks as before, by track."""
        rois = {seen.roi: track for track, seen in self.tracks.items() if seen.roi >= 0}
        return {rois[p.roi]: index for index, p in enumerate(frame.people) if p.roi in rois}

    def _going_on(self, frame: _Frame, matched: dict[int, int]) -> dict[int, int]:
        """The indices of other people who go on from a moment ago, by track."""
        people, ids = self._others(frame, matched)
        if not people or not ids:
            return {}
        cost = np.array([[self._distance(frame, i, self.tracks[t]) for t in ids] for i in people])
        # The assignment pairs all it can, impossible pairs too.
        pairs = zip(*linear_sum_assignment(cost))
        return {ids[j]: people[i] for i, j in pairs if cost[i, j] < _IMPOSSIBLE}

    def _others(self, frame: _Frame, matched: dict[int, int]) -> tuple[list[int], list[int]]:
        """The indices of people without a track, and the tracks without a person."""
        taken = set(matched.values())
        people = [index for index in range(len(frame.people)) if index not in taken]
        return people, [track for track in self.tracks if track not in matched]

    def _distance(self, frame: _Frame, index: int, track: Sighting) -> float:
        """The cost of matching a person to a track of a moment ago."""
        person, elapsed_s = frame.people[index], frame.time_s - track.time_s
        if abs(elapsed_s) > self.config.near_s:
            return _IMPOSSIBLE
        size = max(person_size_px(person), track.size_px, 1.0)
        # A velocity measured between two frames says little about more than the next few.
        expected = track.landmarks_px + track.velocity * min(elapsed_s, 0.1)
        distance = float(np.linalg.norm(person.landmarks_px - expected, axis=1).mean()) / size
        # In the same place, a body of less than half the size is another person's.
        ratio = min(person_size_px(person), track.size_px) / size
        if distance >= self.config.reach or ratio <= 0.5:
            return _IMPOSSIBLE
        look = likeness.of_appearance(frame.appearance(index), track.appearance)
        return distance if look > _OTHER_LOOK else _IMPOSSIBLE

    def _coming_back(self, frame: _Frame, matched: dict[int, int]) -> dict[int, int]:
        """The indices of the other people who were seen before, by track."""
        people, ids = self._others(frame, matched)
        if not people or not ids:
            return {}
        likely = np.array([[self._likeness(frame, i, self.tracks[t]) for t in ids] for i in people])
        out = {}
        for i, j in zip(*linear_sum_assignment(likely, maximize=True)):
            # What speaks for another pair of this person or of this track.
            others = np.concatenate((np.delete(likely[i], j), np.delete(likely[:, j], i)))
            rival = max(others, default=-np.inf)
            if likely[i, j] >= max(self.config.sure, rival + self.config.margin):
                out[ids[j]] = people[i]
        return out

    def _likeness(self, frame: _Frame, index: int, track: Sighting) -> float:
        """How much likelier a person is the track's than another."""
        person, elapsed_s = frame.people[index], abs(frame.time_s - track.time_s)
        now, before = max(person_size_px(person), 1.0), max(track.size_px, 1.0)
        moved = np.linalg.norm(person.landmarks_px.mean(0) - track.landmarks_px.mean(0))
        larger = max(now, before)
        # In a moment a body does not shrink to half.
        if elapsed_s <= self.config.near_s and min(now, before) <= 0.5 * larger:
            return -_IMPOSSIBLE
        return (
            likeness.of_place(float(moved) / larger, elapsed_s, frame.area(larger))
            + likeness.of_size(now / before, elapsed_s)
            + likeness.of_appearance(frame.appearance(index), track.appearance)
        )

    @staticmethod
    def _sighting(frame: _Frame, index: int, before: Sighting | None) -> Sighting:
        person, time_s = frame.people[index], frame.time_s
        velocity = np.zeros((LANDMARKS, 2), np.float32)
        # Without time between two sightings there is no velocity.
        if before is not None and time_s > before.time_s:
            velocity = (person.landmarks_px - before.landmarks_px) / (time_s - before.time_s)
        appearance, described_s = None, -np.inf
        if before is not None:
            appearance, described_s = before.appearance, before.described_s
        if abs(time_s - described_s) >= DESCRIBE_S and frame.is_clear(index):
            newest, described_s = frame.appearance(index), time_s
            if appearance is not None and newest is not None:
                newest = appearance.mixed(newest, _NEW_SHARE)
            appearance = newest
        return Sighting(
            person.landmarks_px, velocity, person_size_px(person), person.roi, time_s,
            appearance, described_s,
        )  # fmt: skip


def clear_looks(people: Mapping[int, Person], image: Pixels) -> dict[int, Appearance]:
    """Return what those people look like that no other person's box covers.

    Args:
        people: The people of a frame, by track.
        image: The frame's picture.
    """
    tracks = list(people)
    frame = _Frame([people[track] for track in tracks], 0.0, image)
    looks = {track: frame.appearance(k) for k, track in enumerate(tracks) if frame.is_clear(k)}
    return {track: look for track, look in looks.items() if look is not None}


def person_size_px(person: Person) -> float:
    """Return the longer side of a person's box, in pixels."""
    left, top, right, bottom = person.box_px.tolist()
    return max(right - left, bottom - top)
