"""Tracks beside each other: which ones met, and which are doubles of others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.tracking.pieces import Read

_SAME, _ALL_LIFE = 0.1, 0.9
"""A track whose landmarks are this near another's (median, in parts of the size) in this share of
its frames is the other's double."""
_NEAR = 0.5
"""People meet when their middles are nearer than this, in parts of their size ..."""
_APART_S = 0.5
"""... and meet again when they were apart for this time."""
_CHUNK = 10_000
"""Records that are read at once."""


@dataclass
class Companions:
    """What one look through a clip shows of tracks beside each other.

    Attributes:
        scores: The mean score of each track.
        doubles: The tracks that are other tracks' doubles.
        meetings: For each meeting the frame with which both most likely changed people, if they
            did, and the two tracks.
        leaps: The frames with which each track may have gone on as the person of a track that
            ended or had not begun.
    """

    scores: dict[int, float]
    doubles: set[int] = field(default_factory=set)
    meetings: list[tuple[int, int, int]] = field(default_factory=list)
    leaps: dict[int, list[int]] = field(default_factory=dict)


class _Meeting:
    """Two tracks near each other, and the frame with which they most likely changed people."""

    def __init__(self, frame: int) -> None:
        self.first, self.last, self.at = frame, frame, frame
        self._least = np.inf
        self._before: np.ndarray | None = None

    def add(self, frame: int, points: np.ndarray) -> None:
        """Add a frame with the landmarks (2, 33, 2) of both, in parts of their size."""
        if self._before is not None:
            # How much further both move if they change people here: negative where they jump.
            apart = np.linalg.norm(points[:, None] - self._before, axis=-1).mean(-1)
            more = float(apart[0, 1] + apart[1, 0] - apart[0, 0] - apart[1, 1])
            if more < self._least:
                self._least, self.at = more, frame
        self.last, self._before = frame, points


def look_through(track: np.ndarray, frame: np.ndarray, read: Read, interval_s: float) -> Companions:
    """Return what the tracks of a clip show beside each other; a chunk of it is read at once.

    Args:
        track: (N,) int64 the records' tracks.
        frame: (N,) int64 their frames' numbers, rising.
        read: Returns the records of some rows.
        interval_s: Time between the source's frames, in seconds.
    """
    ids, place, counts = np.unique(track, return_inverse=True, return_counts=True)
    score = np.zeros(len(ids))
    same: dict[tuple[int, int], int] = {}
    met: dict[tuple[int, int], _Meeting] = {}
    ended: list[tuple[tuple[int, int], _Meeting]] = []
    apart = max(round(_APART_S / interval_s), 1)
    for rows in _whole_frames(frame):
        seen = read(rows)
        np.add.at(score, place[rows], seen.score)
        starts = np.flatnonzero(np.diff(seen.frame, prepend=seen.frame[0] - 1))
        for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]):
            if b - a < 2:
                continue
            points, own = seen.points[a:b], track[rows[a:b]]
            size = np.maximum(np.ptp(points, 1).max(1), 1e-6)
            larger = np.maximum(size[:, None], size)
            middle = points.mean(1)
            near = np.linalg.norm(middle[:, None] - middle, axis=-1) / larger
            for m, n in zip(*np.nonzero(np.triu(near < _NEAR, 1))):
                pair = min(own[m], own[n]), max(own[m], own[n])
                distance = np.median(np.linalg.norm(points[m] - points[n], axis=-1))
                same[pair] = same.get(pair, 0) + int(distance < _SAME * larger[m, n])
                now = int(seen.frame[a])
                if pair in met and now - met[pair].last > apart:
                    ended.append((pair, met.pop(pair)))
                order = [m, n] if own[m] < own[n] else [n, m]
                met.setdefault(pair, _Meeting(now)).add(now, points[order] / larger[m, n])
    out = Companions(dict(zip(ids.tolist(), (score / counts).tolist())))
    number = dict(zip(ids.tolist(), counts.tolist()))
    for (one, other), times in same.items():
        # The one that lives shorter, or is less sure, is the double.
        less = min((one, other), key=lambda k: (number[k], out.scores[k]))
        if times >= _ALL_LIFE * number[less]:
            out.doubles.add(less)
    begins, ends = _lives(place, frame)
    for pair, meeting in [*ended, *met.items()]:
        out.meetings.append((meeting.at, int(pair[0]), int(pair[1])))
        for one, other in (pair, pair[::-1]):
            at = out.leaps.setdefault(int(one), [])
            k = int(np.searchsorted(ids, other))
            at += [meeting.first] if begins[k] >= meeting.first else []
            at += [meeting.last + 1] if ends[k] <= meeting.last else []
    return out


def _lives(place: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frame of each track, by its place among the ids."""
    first = np.unique(place, return_index=True)[1]
    last = len(place) - 1 - np.unique(place[::-1], return_index=True)[1]
    return frame[first], frame[last]


def _whole_frames(frame: np.ndarray) -> list[np.ndarray]:
    """Rows in chunks that end with a frame."""
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    edges = starts[
        np.unique(
            np.searchsorted(starts, np.arange(0, len(frame), _CHUNK)).clip(max=len(starts) - 1)
        )
    ]
    return [np.arange(a, b) for a, b in zip(edges, [*edges[1:], len(frame)])]
