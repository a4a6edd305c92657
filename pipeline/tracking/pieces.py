"""Pieces of tracks: where each begins and ends, how it moves there, and what it looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.tracking import likeness
from pipeline.tracking.appearance import Appearance

NO_ONE = 0
"""The id of records that are no person's of their own. Tracks' ids are 1 or more."""
_LOOK_S = 2.0
"""For how long before or after a piece's end its appearance is averaged."""
_MOTION_S = 0.4
"""The time over which the velocity at a piece's end is measured."""
_ONE_MEETING_S = 0.7
"""Meetings that are nearer than this in time are one: people change once in it."""
_OTHER_LOOK = -2.0
"""A track is cut where the likeness of before and after a meeting is below this."""


class Sightings(NamedTuple):
    """Records of people in frames, N rows by rising frame.

    Attributes:
        frame: (N,) int64 the frames' numbers.
        score: (N,) the perceiver's scores.
        points: (N, 33, 2) landmarks on the plane at a distance of one.
        root_m: (N, 3) the bodies' translations, metres.
        colours: (N, 5, 3, 5) as in `Appearance`.
        looked: (N, 5) likewise its ``seen``; zeros where the person was not described.
    """

    frame: np.ndarray
    score: np.ndarray
    points: np.ndarray
    root_m: np.ndarray
    colours: np.ndarray
    looked: np.ndarray


Read = Callable[[np.ndarray], Sightings]


@dataclass(frozen=True)
class Piece:
    """A part of a track that surely is one person's.

    Attributes:
        track: The tracker's id.
        first, last: The numbers of its first and last frame.
        start_m, end_m: (3,) where it begins and ends, metres.
        start_velocity, end_velocity: (3,) metres a second.
        start_look, end_look: What the person looks like there; None where that is unknown.
        betas: (10,) the track's shape; None where the track may be two people's.
    """

    track: int
    first: int
    last: int
    start_m: np.ndarray
    end_m: np.ndarray
    start_velocity: np.ndarray
    end_velocity: np.ndarray
    start_look: Appearance | None
    end_look: Appearance | None
    betas: np.ndarray | None


class Cuts:
    """Where the tracks of a clip are cut, because one looks like another person since.

    Args:
        rows: The records of each track.
        frame: (N,) int64 the frames' numbers of all records.
        read: Returns the records of some rows.
        interval_s: Time between the source's frames, in seconds.
    """

    def __init__(
        self, rows: Mapping[int, np.ndarray], frame: np.ndarray, read: Read, interval_s: float
    ) -> None:
        self._rows, self._frame, self._read, self._interval_s = rows, frame, read, interval_s
        self._apart = round(_ONE_MEETING_S / interval_s)
        self._at: dict[int, list[int]] = {track: [] for track in rows}

    def exchange(self, at: int, one: int, other: int) -> None:
        """Cut two tracks with a frame if both look like other people since."""
        if all(self._free(track, at) and self._parts(track, at) for track in (one, other)):
            self._at[one].append(at)
            self._at[other].append(at)

    def leap(self, track: int, frames: Sequence[int]) -> None:
        """Cut a track with those frames after which it looks like another person."""
        for at in sorted(set(frames)):
            if self._free(track, at) and self._parts(track, at):
                self._at[track].append(at)

    def edges(self, track: int) -> list[int]:
        """Return where a track's pieces begin and end, among its records."""
        rows = self._rows[track]
        inner = np.searchsorted(self._frame[rows], sorted(self._at[track])).tolist()
        return [0, *inner, len(rows)]

    def _free(self, track: int, at: int) -> bool:
        """Whether no other cut is so near that it is of the same meeting."""
        return all(abs(at - other) > self._apart for other in self._at[track])

    def _parts(self, track: int, at: int) -> bool:
        """Whether a cut parts two looks, up to the next cuts."""
        rows = self._rows[track]
        edges = self.edges(track)
        place = int(np.searchsorted(self._frame[rows], at))
        k = int(np.searchsorted(edges, place))
        if place in (0, len(rows)) or edges[k] == place:
            return False
        before = _look(rows[edges[k - 1] : place], self._read, self._interval_s, end=True)
        after = _look(rows[place : edges[k]], self._read, self._interval_s, end=False)
        return likeness.of_appearance(before, after) < _OTHER_LOOK


def piece_of(
    track: int, rows: np.ndarray, read: Read, betas: np.ndarray | None, interval_s: float
) -> Piece:
    count = max(round(_MOTION_S / interval_s), 2)
    start, end = read(rows[:count]), read(rows[-count:])
    start_m, start_velocity = _motion(start, start.frame[0], interval_s)
    end_m, end_velocity = _motion(end, end.frame[-1], interval_s)
    return Piece(
        track, int(start.frame[0]), int(end.frame[-1]),
        start_m, end_m, start_velocity, end_velocity,
        _look(rows, read, interval_s, end=False), _look(rows, read, interval_s, end=True), betas,
    )  # fmt: skip


def _motion(seen: Sightings, at: int, interval_s: float) -> tuple[np.ndarray, np.ndarray]:
    """The place and the velocity in a frame, by a straight line through records."""
    time_s = (seen.frame - at) * interval_s
    root_m = seen.root_m.astype(np.float64)
    # Of few frames the velocity is mostly noise, above all along the ray.
    if np.ptp(time_s) < 0.5 * _MOTION_S:
        return root_m[np.abs(time_s).argmin()], np.zeros(3)
    slope, place = np.polyfit(time_s, root_m, 1)
    slope[2] = 0.0
    return place, slope


def _look(rows: np.ndarray, read: Read, interval_s: float, end: bool) -> Appearance | None:
    """The mean appearance at the end, or at the start, of rows of one track."""
    count = max(round(_LOOK_S / interval_s), 1)
    seen = read(rows[-count:] if end else rows[:count])
    weight = seen.looked.astype(np.float32)
    described = weight.any(1)
    if not described.any():
        return None
    weight, colours = weight[described], seen.colours[described].astype(np.float32)
    total = np.maximum(weight.sum(0), 1e-6)
    mean = (weight[..., None, None] * colours).sum(0) / total[:, None, None]
    return Appearance(mean.astype(np.float32), weight.mean(0))
