"""Pieces of tracks: where each begins and ends, how it moves there, and what it looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def edges_of(
    rows: np.ndarray, meetings: Sequence[int], frame: np.ndarray, read: Read, interval_s: float
) -> list[int]:
    """Where a track is cut: its ends, and its meetings after which another person looks out."""
    out = [0]
    for group in _groups(sorted(set(meetings)), round(_ONE_MEETING_S / interval_s)):
        places = np.unique(np.searchsorted(frame[rows], group))
        places = places[(places > out[-1]) & (places < len(rows))]
        if not len(places):
            continue
        choices = []
        for at in places.tolist():
            before = _look(rows[out[-1] : at], read, interval_s, end=True)
            after = _look(rows[at:], read, interval_s, end=False)
            like = likeness.of_appearance(before, after)
            # Among cuts that part the looks alike, where the track leapt farthest.
            choices.append((like, -_leap(read(rows[at - 1 : at + 1])), at))
        like, _, at = min(choices)
        if like < _OTHER_LOOK:
            out.append(at)
    return [*out, len(rows)]


def _groups(frames: Sequence[int], apart: int) -> list[np.ndarray]:
    """Rising frames in groups that are further apart than this."""
    parts = np.split(np.array(frames, np.int64), np.flatnonzero(np.diff(frames) > apart) + 1)
    return [part for part in parts if len(part)]


def _leap(seen: Sightings) -> float:
    """How far a person's landmarks are from one record to the next, in parts of the size."""
    moved = np.linalg.norm(seen.points[1] - seen.points[0], axis=-1).mean()
    return float(moved / max(np.ptp(seen.points[0], 0).max(), 1e-6))


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
