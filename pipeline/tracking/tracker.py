"""People's identities from frame to frame: perceived people to tracks, one assignment a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.core.people import Person
from pipeline.core.skeleton import LANDMARKS

_IMPOSSIBLE = 1e6
"""Cost of a pair that may not be matched."""


@dataclass(frozen=True)
class TrackConfig:
    """When a person counts as one of before.

    Attributes:
        remember_s: For how many seconds a track without its person can come back.
        reach: How far its landmarks may be from where they are expected, in parts of the person's
            size.
    """

    remember_s: float = 1.0
    reach: float = 0.6


@dataclass(frozen=True, eq=False)
class Sighting:
    """A track's person in the last frame that had it.

    Attributes:
        landmarks_px: (33, 2) pixels.
        velocity: (33, 2) pixels a second.
        size_px: The longer side of the person's box.
        roi: The perceiver's id of the person, or -1.
        time_s: Time of the frame, in seconds.
    """

    landmarks_px: np.ndarray
    velocity: np.ndarray
    size_px: float
    roi: int
    time_s: float


@dataclass
class Tracker:
    """The tracks of one source.

    A person that the perceiver tracks itself (``Person.roi`` 0 or more) keeps its track as long as
    the perceiver does. Others, and those that the perceiver lost, are matched by the mean distance
    of their landmarks from where the track's are expected, in parts of the person's size (Hungarian
    assignment; Kuhn 1955).

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

    def assign(self, people: Sequence[Person], time_s: float) -> dict[int, Person]:
        """Return the people of one frame by track id, rising; new people get new ids.

        Args:
            people: The people of the frame.
            time_s: The frame's time in seconds.
        """
        limit = self.config.remember_s
        self.tracks = {k: s for k, s in self.tracks.items() if abs(time_s - s.time_s) <= limit}
        ids = list(self.tracks)
        cost = np.full((len(people), len(ids)), _IMPOSSIBLE)
        for i, person in enumerate(people):
            for j, track in enumerate(ids):
                cost[i, j] = self._distance(person, self.tracks[track], time_s)
        out: dict[int, Person] = {}
        for i, j in zip(*linear_sum_assignment(cost)):
            # The assignment pairs all it can, impossible pairs too.
            if cost[i, j] < _IMPOSSIBLE:
                out[ids[j]] = people[i]
        for person in people:
            if not any(person is matched for matched in out.values()):
                out[self.next_id] = person
                self.next_id += 1
        for track, person in out.items():
            self.tracks[track] = self._sighting(person, self.tracks.get(track), time_s)
        return dict(sorted(out.items()))

    def _distance(self, person: Person, track: Sighting, time_s: float) -> float:
        """The cost of matching a person to a track."""
        # The perceiver's own tracking is better than any distance: such a pair always wins.
        if person.roi >= 0 and person.roi == track.roi:
            return -1.0
        size = max(person_size_px(person), track.size_px, 1.0)
        elapsed = time_s - track.time_s
        # A velocity measured between two frames says little about more than the next few.
        expected = track.landmarks_px + track.velocity * min(elapsed, 0.1)
        distance = float(np.linalg.norm(person.landmarks_px - expected, axis=1).mean()) / size
        # In the same place, a body of less than half the size is another person's.
        ratio = min(person_size_px(person), track.size_px) / size
        return distance if distance < self.config.reach and ratio > 0.5 else _IMPOSSIBLE

    @staticmethod
    def _sighting(person: Person, before: Sighting | None, time_s: float) -> Sighting:
        velocity = np.zeros((LANDMARKS, 2), np.float32)
        # Without time between two sightings there is no velocity.
        if before is not None and time_s > before.time_s:
            velocity = (person.landmarks_px - before.landmarks_px) / (time_s - before.time_s)
        return Sighting(person.landmarks_px, velocity, person_size_px(person), person.roi, time_s)


def person_size_px(person: Person) -> float:
    """Return the longer side of a person's box, in pixels."""
    box = person.box_px
    return float(max(box[2] - box[0], box[3] - box[1]))
